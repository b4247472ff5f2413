"""A page that decodes .clic files in the browser. docs/web.md."""
