"use strict";
// Before/after viewers. Every version of a picture is in the page as an <img>; two of them lie over each other, the
// upper one cut at the slider. One image pixel is one CSS pixel times the zoom: pictures are moved, never resampled.

document.documentElement.classList.add("js");
document.querySelectorAll(".viewer").forEach(makeViewer);

function makeViewer(viewer) {
  const stage = viewer.querySelector(".stage");
  const images = [...stage.querySelectorAll("img")];
  const slide = viewer.querySelector(".slide");
  const scrub = viewer.querySelector(".scrub");
  const buttons = [...viewer.querySelectorAll(".zoom button")];
  const picture = {width: images[0].width, height: images[0].height};
  const view = {split: 0.5, zoom: 1, x: 0, y: 0}; // x, y: where the picture's corner lies on the stage
  const chosen = {left: null, right: null};

  function clamp(value, low, high) {
    return Math.min(Math.max(value, low), high);
  }

  function place(size, offset, room) { // inside the stage; in its middle if the picture is smaller
    return size <= room ? (room - size) / 2 : clamp(offset, room - size, 0);
  }

  function draw() {
    view.x = place(picture.width * view.zoom, view.x, stage.clientWidth);
    view.y = place(picture.height * view.zoom, view.y, stage.clientHeight);
    const x = Math.round(view.x); // whole CSS pixels, or the browser would interpolate
    const y = Math.round(view.y);
    const split = view.split * stage.clientWidth;
    const cut = clamp((split - x) / view.zoom, 0, picture.width);
    for (const image of images) {
      const version = image.dataset.version;
      image.classList.toggle("left", version === chosen.left);
      image.classList.toggle("right", version === chosen.right);
      image.style.transform = `translate(${x}px, ${y}px) scale(${view.zoom})`;
      image.style.clipPath = version === chosen.right && version !== chosen.left ? `inset(0 0 0 ${cut}px)` : "none";
    }
    scrub.style.left = `${split}px`;
    slide.value = Math.round(view.split * 100);
    stage.classList.toggle("close", view.zoom > 1);
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.value) === view.zoom)));
  }

  function choose(side, version) {
    chosen[side] = version;
    const image = images.find((candidate) => candidate.dataset.version === version);
    stage.querySelector(`.of-${side}`).textContent = image.dataset.label;
    draw();
  }

  function zoomTo(zoom, px = stage.clientWidth / 2, py = stage.clientHeight / 2) { // the point under (px, py) stays
    view.x = px - (px - view.x) * (zoom / view.zoom);
    view.y = py - (py - view.y) * (zoom / view.zoom);
    view.zoom = zoom;
    draw();
  }

  function drag(target, move) { // calls move(event, dx, dy) while a pointer that went down on target is held
    target.addEventListener("pointerdown", (down) => {
      if (down.button !== 0) return;
      down.stopPropagation();
      target.setPointerCapture(down.pointerId);
      let {clientX, clientY} = down;
      const moved = (event) => {
        if (event.pointerId !== down.pointerId) return;
        move(event, event.clientX - clientX, event.clientY - clientY);
        ({clientX, clientY} = event);
      };
      const end = () => target.removeEventListener("pointermove", moved);
      target.addEventListener("pointermove", moved);
      target.addEventListener("lostpointercapture", end, {once: true});
    });
  }

  drag(scrub, (event) => {
    view.split = clamp((event.clientX - stage.getBoundingClientRect().left) / stage.clientWidth, 0, 1);
    draw();
  });
  drag(stage, (event, dx, dy) => {
    view.x += dx;
    view.y += dy;
    draw();
  });
  slide.addEventListener("input", () => {
    view.split = slide.value / 100;
    draw();
  });
  buttons.forEach((button) => button.addEventListener("click", () => zoomTo(Number(button.value))));
  stage.addEventListener("dblclick", (event) => {
    const box = stage.getBoundingClientRect();
    zoomTo(view.zoom === 1 ? 2 : 1, event.clientX - box.left, event.clientY - box.top);
  });
  stage.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40]}[event.key];
    const zoom = {"+": 2, "=": 2, "-": 0.5}[event.key];
    if (step) {
      const before = [view.x, view.y];
      view.x += step[0];
      view.y += step[1];
      draw();
      if (before[0] === view.x && before[1] === view.y) return; // nothing moved: the key scrolls the page
    } else if (zoom) {
      zoomTo(clamp(view.zoom * zoom, 1, 4));
    } else {
      return;
    }
    event.preventDefault();
  });
  for (const radio of viewer.querySelectorAll(".choice input")) {
    radio.addEventListener("change", () => choose(radio.dataset.side, radio.value));
    if (radio.checked) chosen[radio.dataset.side] = radio.value;
  }
  choose("left", chosen.left);
  choose("right", chosen.right);
  view.x = (stage.clientWidth - picture.width) / 2;
  view.y = (stage.clientHeight - picture.height) / 2;
  draw();
  new ResizeObserver(draw).observe(stage);
}
