//go:build e2e

package e2e

import (
	"fmt"
	"testing"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// TestRotation replaces keys of a running gateway without overlap: by HTTP it is
// in force when it is answered, by command within the gateway's next look.
func TestRotation(t *testing.T) {
	o := startAdmin(t, setup{})
	client := o.client(false)
	status := func(key any) int {
		return client.Do(o.context(), rig.Request{Key: fmt.Sprint(key), Body: rig.Chat{Model: "m", MaxTokens: 10, Script: rig.Script{Prompt: 5, Completion: 10}}.Body()}).Status
	}
	want := func(what string, key any, code int) {
		t.Helper()
		if got := status(key); got != code {
			t.Errorf("%s: %d, want %d", what, got, code)
		}
	}
	first := o.want(201, "POST", "/admin/keys", `{"limit":1000000,"daily":1,"name":"Team A"}`)
	want("a limit of its own", first["key"], 429)
	o.want(200, "PATCH", fmt.Sprint("/admin/keys/", first["id"]), `{"daily":null}`)
	want("the default again", first["key"], 200)

	second := o.want(201, "POST", fmt.Sprint("/admin/keys/", first["id"], "/rotate"), `{"overlap":"0s"}`)
	want("the first key", first["key"], 403)
	want("the second key", second["key"], 200)

	third := o.command("rotate-key", "--key", fmt.Sprint(second["key"]), "--overlap", "0s")
	o.eventually("the third key to be known", func() bool { return status(third["key"]) == 200 })
	want("the second key afterwards", second["key"], 403)
	if third["replaces"] != second["id"] || third["name"] != "Team A" || third["limit"] != 1000000.0 {
		t.Errorf("the third key is %v", third)
	}
	o.balanced()
}
