package api

import (
	"strings"
	"testing"
)

func TestAdmin_changesInPages(t *testing.T) {
	o := newOperator(t)
	id, secret := o.create(`{"limit":1000,"name":"n"}`)
	key := adminKeys + "/" + id
	o.want(200, "PATCH", key, `{"daily":5}`)
	o.want(200, "POST", key+"/block", "")
	o.want(200, "POST", key+"/unblock", "")
	fresh := o.want(201, "POST", key+"/rotate", `{"overlap":"1h"}`)
	o.want(201, "PUT", adminTariffs+"/team", `{"limit":5}`)
	o.want(200, "POST", key+"/revoke", "")
	var actions []string
	pages, after := 0, ""
	for {
		page := o.want(200, "GET", adminChanges+"?limit=3"+after, "")
		pages++
		for _, c := range page["changes"].([]any) {
			actions = append(actions, asMap(c)["action"].(string))
		}
		next, more := page["next"].(string)
		if !more {
			break
		}
		after = "&after=" + next
	}
	if got := strings.Join(actions, " "); pages != 3 || got != "revoke-key set-tariff rotate-key unblock-key block-key set-limit create-key" {
		t.Errorf("%d pages: %s", pages, got)
	}
	change := asMap(o.want(200, "GET", adminChanges+"?subject="+id, "")["changes"].([]any)[4])
	if change["actor"] != "unknown" || change["subject"] != id || change["at"] != "2026-11-24T10:00:00Z" ||
		asJSON(t, change["detail"]) != `{"after":{"daily":5},"before":{"daily":null}}` {
		t.Errorf("a change is %v", change)
	}
	born := o.want(200, "GET", adminChanges+"?subject="+fresh["id"].(string), "")["changes"].([]any)
	if len(born) != 1 || asMap(asMap(born[0])["detail"])["new_key"] != fresh["id"] {
		t.Errorf("of the new key: %v", born)
	}
	for query, n := range map[string]int{"subject=team": 1, "from=2026-11-25": 0, "to=2026-11-23": 0, "from=2026-11-24&to=2026-11-24": 7, "subject=" + unknownID: 0, "limit=7": 7} {
		if page := o.want(200, "GET", adminChanges+"?"+query, ""); len(page["changes"].([]any)) != n || page["next"] != nil {
			t.Errorf("%s: %v", query, page)
		}
	}
	if all := o.send("GET", adminChanges, "").Body.String(); strings.Contains(all, secret) || strings.Contains(all, fresh["key"].(string)) {
		t.Errorf("a secret in the changes: %s", all)
	}
}
