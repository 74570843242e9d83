package main

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// changesAtReload are the settings that a running gateway takes up. All others
// need a restart; whoever adds a setting decides in settings().
func changesAtReload() []string {
	return []string{
		"auth.allowed_keys", "auth.invalid_key_status", "auth.keys_file", "docs.enabled", "limits.concurrent", "limits.daily", "limits.monthly",
		"limits.requests", "limits.tariff", "limits.tokens_per_minute", "limits.window", "log.level", "metrics.models",
		"prices.unknown_model", "request.budget_exact", "request.default_output_tokens", "upstream.api_key",
	}
}

// another sets a field to some other value.
func another(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() - 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
	default:
		panic("a kind of setting that this test does not know: " + v.Kind().String())
	}
}

func TestTake_everySettingAlone(t *testing.T) {
	var atOnce []string
	for _, s := range settings() {
		if s.change == 0 {
			t.Errorf("%s: nobody has decided when a change takes effect", s.path)
			continue
		}
		running, fresh := Default(), Default()
		another(fieldOf(&fresh, s.path))
		next, changed, waiting := running.take(fresh)
		if slices.Contains(changed, s.path) {
			atOnce = append(atOnce, s.path)
		}
		want, wantChanged, wantWaiting := fresh, []string{s.path}, []string(nil)
		if !slices.Contains(changesAtReload(), s.path) {
			want, wantChanged, wantWaiting = running, nil, []string{s.path}
		}
		if diff := cmp.Diff(want, next); diff != "" {
			t.Errorf("%s (-want +got):\n%s", s.path, diff)
		}
		if !slices.Equal(changed, wantChanged) || !slices.Equal(waiting, wantWaiting) {
			t.Errorf("%s: changed %q, waiting %q", s.path, changed, waiting)
		}
	}
	slices.Sort(atOnce)
	if diff := cmp.Diff(changesAtReload(), atOnce); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTake_longerWindow: the windows hold what fits into the length in force; a
// longer one would have forgotten admissions and let too many in.
func TestTake_longerWindow(t *testing.T) {
	running, fresh := Default(), Default()
	fresh.Limits.Window, fresh.Limits.Requests = running.Limits.Window+time.Second, 7
	next, changed, waiting := running.take(fresh)
	if next.Limits.Window != running.Limits.Window || next.Limits.Requests != 7 ||
		!slices.Equal(changed, []string{"limits.requests"}) || !slices.Equal(waiting, []string{"limits.window"}) {
		t.Errorf("%+v, changed %q, waiting %q", next.Limits, changed, waiting)
	}
}

func TestTake_nothing(t *testing.T) {
	running, fresh := Default(), Default()
	fresh.Auth.AllowedKeys = []Secret{} // ALLOWED_API_KEYS=","
	if _, changed, waiting := running.take(fresh); len(changed)+len(waiting) > 0 {
		t.Errorf("changed %q, waiting %q", changed, waiting)
	}
}

// TestSettings_documented: docs/configuration.md lists every setting, with its
// variable and when a change takes effect.
func TestSettings_documented(t *testing.T) {
	content, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	words := map[effect]string{atReload: "at once", atReloadIfShorter: "at once when shorter, else restart", atRestart: "restart"}
	var want []string
	for _, s := range settings() {
		variable := "`" + s.env + "`"
		if s.secret {
			variable += ", `" + s.env + "_FILE`"
		}
		want = append(want, strings.Join([]string{"| `" + s.path + "`", variable, words[s.change] + " |"}, " | "))
	}
	var got []string
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "| `") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table of docs/configuration.md (-want +got):\n%s", diff)
	}
}
