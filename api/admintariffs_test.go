package api

import (
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestAdmin_tariffs(t *testing.T) {
	o := newOperator(t)
	made := o.want(201, "PUT", adminTariffs+"/team", `{"limit":7e2,"daily":5,"budget":"12.50","description":" for teams "}`)
	const first = `{"budget":"12.5","concurrent":null,"daily":5,"description":"for teams","limit":700,"monthly":null,"name":"team","rpm":null,"tpm":null}`
	if made["old"] != nil || asJSON(t, made["new"]) != first || made["name"] != "team" {
		t.Errorf("made %v", made)
	}
	id, _ := o.create(`{"tariff":"TEAM","concurrent":3}`)
	if k := o.want(200, "GET", adminKeys+"/"+id, ""); k["tariff"] != "team" || k["limit"] != 700.0 || k["limit_source"] != "tariff" || k["daily"] != 5.0 || k["budget"] != "12.5" {
		t.Errorf("the key is %v", k)
	}
	// PUT is the whole of a tariff: what is not in it is gone.
	changed := o.want(200, "PUT", adminTariffs+"/team", `{"limit":900,"rpm":4}`)
	if asJSON(t, changed["old"]) != first ||
		asJSON(t, changed["new"]) != `{"budget":null,"concurrent":null,"daily":null,"description":"","limit":900,"monthly":null,"name":"team","rpm":4,"tpm":null}` {
		t.Errorf("changed %v", changed)
	}
	if k := o.want(200, "GET", adminKeys+"/"+id, ""); k["limit"] != 900.0 || k["rpm"] != 4.0 || k["daily"] != 600.0 || k["budget"] != nil || k["concurrent"] != 3.0 {
		t.Errorf("the key is %v", k)
	}
	named, _ := o.want(200, "GET", adminTariffs, "")["named"].([]any)
	if len(named) != 5 || asMap(named[0])["name"] != "team" || asMap(named[0])["keys"] != 1.0 || asMap(named[1])["keys"] != 0.0 {
		t.Errorf("named %v", named)
	}
	for _, c := range []struct{ change, tariff, limit, source string }{
		{`{"tariff":"Premium"}`, `"premium"`, "100000", "tariff"},
		{`{"limit":5}`, `"premium"`, "5", "own"},
		{`{"tariff":"basic"}`, `"basic"`, "10000", "tariff"},
		{`{"tariff":"team","limit":6}`, `"team"`, "6", "own"},
		{`{"limit":null}`, `"team"`, "900", "tariff"},
		{`{"tariff":null}`, "null", "500", "default"},
		{`{"tariff":"team","budget":"0.5"}`, `"team"`, "900", "tariff"},
	} {
		now := asMap(o.want(200, "PATCH", adminKeys+"/"+id, c.change)["new"])
		if asJSON(t, now["tariff"]) != c.tariff || asJSON(t, now["limit"]) != c.limit || now["limit_source"] != c.source {
			t.Errorf("%s: %v", c.change, now)
		}
	}
	w := o.send("PATCH", adminKeys+"/"+id, `{"tariff":"gold"}`)
	if w.Code != 409 || wantReport(t, w) != (refusal{"unknown_tariff", "tariff"}) || !strings.Contains(w.Body.String(), "basic, enterprise, premium, team, unlimited") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	share := asMap(asMap(o.want(200, "GET", "/admin/stats", "")["tariff_distribution"])["team"])
	if asJSON(t, share) != `{"avg_tokens":900,"count":1,"total_tokens":900}` {
		t.Errorf("distribution %v", share)
	}
	w = o.send("DELETE", adminTariffs+"/team", "")
	if w.Code != 409 || wantReport(t, w) != (refusal{"tariff_in_use", "name"}) || !strings.Contains(w.Body.String(), "Keys that have this tariff: 1.") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	o.want(200, "POST", adminKeys+"/"+id+"/revoke", "")
	if gone := o.want(200, "DELETE", adminTariffs+"/team", ""); gone["name"] != "team" || gone["limit"] != 900.0 {
		t.Errorf("removed %v", gone)
	}
	o.want(404, "DELETE", adminTariffs+"/team", "")
	lines := o.seen.FilterMessage("admin change").FilterField(zap.String("tariff", "team")).Len()
	if lines != 3 {
		t.Errorf("%d lines of the tariff in the log, want 3", lines)
	}
}

func TestAdmin_changesAKeyInOneStep(t *testing.T) {
	o := newOperator(t)
	id, _ := o.create(`{"limit":10,"name":"n","description":"d","models":["a"],"expires":"1h"}`)
	key := adminKeys + "/" + id
	now := asMap(o.want(200, "PATCH", key, `{"name":" N ","models":["gpt-4o*","b"],"daily":3}`)["new"])
	if now["name"] != "N" || now["description"] != "d" || asJSON(t, now["models"]) != `["gpt-4o*","b"]` || now["daily"] != 3.0 || now["limit"] != 10.0 {
		t.Errorf("changed %v", now)
	}
	for _, c := range []struct{ change, member, value string }{
		{`{"models":[]}`, "models", "[]"},
		{`{"models":["x"]}`, "models", `["x"]`},
		{`{"models":null}`, "models", "[]"},
		{`{"description":null}`, "description", `""`},
		{`{"description":"e"}`, "description", `"e"`},
		{`{"description":""}`, "description", `""`},
		{`{"expires_at":"2027-01-01T01:00:00+01:00"}`, "expires_at", `"2027-01-01T00:00:00Z"`},
		{`{"expires_at":null}`, "expires_at", "null"},
	} {
		if now := asMap(o.want(200, "PATCH", key, c.change)["new"]); asJSON(t, now[c.member]) != c.value {
			t.Errorf("%s: %v", c.change, now)
		}
		if k := o.want(200, "GET", key, ""); asJSON(t, k[c.member]) != c.value {
			t.Errorf("%s: the key is %v", c.change, k)
		}
	}
	// Nothing of a change that is refused is made.
	o.want(409, "PATCH", key, `{"name":"other","tariff":"gold"}`)
	o.want(400, "PATCH", key, `{"name":"other","models":["`+strings.Repeat("ü", 129)+`"]}`)
	if k := o.want(200, "GET", key, ""); k["name"] != "N" {
		t.Errorf("the key is %v", k)
	}
	// An expired key takes a longer life, and nothing else before that.
	o.want(200, "PATCH", key, `{"expires_at":"2026-11-24T11:00:00Z"}`)
	o.now = o.now.AddDate(0, 0, 1)
	o.want(409, "PATCH", key, `{"name":"late"}`)
	o.want(200, "PATCH", key, `{"name":"late","expires_at":"2026-12-24T11:00:00Z"}`)
	if k := o.want(200, "GET", key, ""); k["state"] != "active" || k["name"] != "late" || k["last_used_at"] != nil {
		t.Errorf("the key is %v", k)
	}
}
