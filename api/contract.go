package api

import (
	"encoding/json"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// bearerScheme is the name of the security scheme in both documents; the
// original gateway's document called it so.
const bearerScheme = "HTTPBearer"

// about is what a document says of the whole.
type about struct {
	Title, Version, Description string
	// Credential says what the bearer token is.
	Credential string
}

// newContract prepares routes on mux that describe themselves: what they read
// and answer is checked against, and documented from, the same Go types.
func newContract(mux *http.ServeMux, a about) huma.API {
	useOwnErrors()
	c := huma.DefaultConfig(a.Title, a.Version)
	c.Info.Description = a.Description
	c.Info.License = &huma.License{Name: "MIT", Identifier: "MIT"}
	c.Servers = []*huma.Server{{URL: "/"}}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearerScheme: {Type: "http", Scheme: "bearer", Description: a.Credential},
	}
	// The document and the pages are served by routes of our own: the library's
	// pages load from elsewhere, and its hooks add members to every answer.
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	c.Formats = map[string]huma.Format{"application/json": compactJSON(), "json": compactJSON()}
	c.RejectUnknownQueryParameters = true // a mistyped filter must not mean "everything"
	contract := humago.New(mux, c)
	contract.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		ctx.SetHeader("Cache-Control", "no-store")
		next(ctx)
	})
	return contract
}

func compactJSON() huma.Format {
	return huma.Format{
		Marshal: func(w io.Writer, v any) error {
			e := json.NewEncoder(w)
			e.SetEscapeHTML(false)
			return e.Encode(v)
		},
		Unmarshal: json.Unmarshal,
	}
}
