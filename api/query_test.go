package api

import (
	"encoding/json"
	"net/http"
	"testing"
)

// Lists are read in both spellings; what could be read in two ways is refused.
func TestQuery_hasOneReading(t *testing.T) {
	d := newDesk(t)
	good := []string{"Authorization", "Bearer " + d.secrets[0]}
	for _, query := range []string{"group_by=day,model", "group_by=day&group_by=model", "group_by=model%2Cday"} {
		d.spend(t, 0, "m", 1, 0, "reported")
		rows, _ := d.tell(t, 0, "/usage?"+query)["rows"].([]any)
		if len(rows) != 1 {
			t.Fatalf("%s: %v", query, rows)
		}
		row, _ := rows[0].(map[string]any)
		if row["day"] != "2026-11-24" || row["model"] != "m" {
			t.Errorf("%s: %v", query, row)
		}
	}
	for query, param := range map[string]string{
		"from=":                                    "from",
		"from":                                     "from",
		"from=2026-11-01&from=2026-11-02":          "from",
		"format=csv&format=csv":                    "format",
		"group_by=":                                "group_by",
		"group_by=day&group_by=day":                "group_by",
		"group_by=day,":                            "group_by",
		"group_by=day&group_by=":                   "group_by",
		"From=2026-11-01":                          "From",
		"to=2026-11-24T00:00:00Z":                  "to",
		"from=2025-11-23&to=2026-11-24":            "from", // 367 days
		"to=2026-11-01%0A":                         "to",
		"from=2026-11-01&to=2026-10-31&format=csv": "from",
	} {
		w := get(t, d.handler, "/usage?"+query, good...)
		var e errorReport
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != http.StatusBadRequest || e.Object.Param == nil || *e.Object.Param != param {
			t.Errorf("%s: %d %s, want 400 about %s", query, w.Code, w.Body, param)
		}
	}
	for _, query := range []string{"%zz", "from=1;to=2"} {
		if w := get(t, d.handler, "/limits?"+query, good...); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
	if w := get(t, d.handler, "/usage?from=2025-11-24&to=2026-11-24", good...); w.Code != http.StatusOK {
		t.Errorf("366 days: %d %s", w.Code, w.Body)
	}
}

// Who asks comes before what was asked.
func TestQuery_isReadForOwnersOnly(t *testing.T) {
	d := newDesk(t)
	if w := get(t, d.handler, "/usage?from=&nonsense=1"); w.Code != http.StatusUnauthorized {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestUsage_formByAcceptHeader(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct{ query, accept, want string }{
		{"", "", "application/json"},
		{"", "*/*", "application/json"},
		{"", "text/*", "application/json"},
		{"", "text/csv", "text/csv; charset=utf-8"},
		{"", "Text/CSV;q=0.5", "text/csv; charset=utf-8"},
		{"", "text/csv;q=0", "application/json"},
		{"", "text/csv;q=much", "application/json"},
		{"", "application/json, text/csv;q=0.9", "application/json"},
		{"", "text/html, text/csv;header=present, */*;q=0.1", "text/csv; charset=utf-8"},
		{"?format=json", "text/csv", "application/json"},
		{"?format=csv", "application/json", "text/csv; charset=utf-8"},
	} {
		w := get(t, d.handler, "/usage"+c.query, "Authorization", "Bearer "+d.secrets[0], "Accept", c.accept)
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != c.want || w.Header().Get("Vary") != "Accept" {
			t.Errorf("%q with Accept %q: %d, %s, Vary %q", c.query, c.accept, w.Code, got, w.Header().Get("Vary"))
		}
	}
}
