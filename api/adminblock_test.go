package api

import (
	"testing"
	"time"
)

func TestAdmin_blocksAndLetsInAgain(t *testing.T) {
	o := newOperator(t)
	id, secret := o.create(`{"limit":1000,"daily":5}`)
	key := adminKeys + "/" + id
	for range 2 {
		if b := o.want(200, "POST", key+"/block", ""); b["state"] != "blocked" || b["blocked_at"] != "2026-11-24T10:00:00Z" || b["id"] != id {
			t.Errorf("blocked %v", b)
		}
		o.now = o.now.Add(time.Hour)
	}
	if k := o.want(200, "GET", key, ""); k["state"] != "blocked" || k["limit"] != 1000.0 || k["daily"] != 5.0 || k["blocked_at"] != "2026-11-24T10:00:00Z" {
		t.Errorf("the key is %v", k)
	}
	if page := o.want(200, "GET", adminKeys+"?state=blocked", ""); len(page["keys"].([]any)) != 1 {
		t.Errorf("listed %v", page)
	}
	if s := o.want(200, "GET", "/admin/stats", ""); s["blocked_keys"] != 1.0 || s["active_keys"] != 0.0 {
		t.Errorf("stats %v", s)
	}
	o.want(200, "PATCH", key, `{"daily":6}`)
	if got := wantReport(t, o.send("POST", key+"/rotate", `{}`)).code; got != "key_blocked" {
		t.Errorf("a rotation: %s", got)
	}
	if b := o.want(200, "POST", key+"/unblock", ""); b["state"] != "active" || b["blocked_at"] != nil {
		t.Errorf("let in %v", b)
	}
	if k := o.want(200, "GET", key, ""); k["state"] != "active" || k["daily"] != 6.0 {
		t.Errorf("the key is %v", k)
	}
	o.want(200, "POST", key+"/revoke", "")
	for _, action := range []string{"/block", "/unblock"} {
		w := o.send("POST", key+action, "")
		if got := wantReport(t, w).code; w.Code != 409 || got != "key_revoked" {
			t.Errorf("%s of a revoked key: %d %s", action, w.Code, got)
		}
	}
	k, err := o.books.Find(t.Context(), secret)
	if err != nil || !k.BlockedAt.IsZero() {
		t.Errorf("%+v, %v", k, err)
	}
}
