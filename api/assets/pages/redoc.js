// Addresses are relative: the gateway may stand behind a proxy under a path.
Redoc.init("openapi.json", {
  expandResponses: "200",
  pathInMiddlePanel: true,
  theme: { typography: { fontFamily: "system-ui, sans-serif", headings: { fontFamily: "system-ui, sans-serif" } } },
}, document.getElementById("redoc"));
