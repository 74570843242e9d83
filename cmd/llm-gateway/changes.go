package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// take is the configuration that is in force when fresh has been read while c
// was in force: what can change in a running gateway is fresh's, the rest is
// c's. The paths of the former that differ are changed, of the latter waiting.
func (c Config) take(fresh Config) (next Config, changed, waiting []string) {
	next = c
	for _, s := range settings() {
		was, is := fieldOf(&next, s.path), fieldOf(&fresh, s.path)
		switch {
		case same(was, is):
		case s.change == atReload, s.change == atReloadIfShorter && is.Int() < was.Int():
			was.Set(is)
			changed = append(changed, s.path)
		default:
			waiting = append(waiting, s.path)
		}
	}
	return next, changed, waiting
}

// fieldOf is the field of the setting at a path. It panics for a path that is
// none, which a test excludes.
func fieldOf(c *Config, path string) reflect.Value {
	v := reflect.ValueOf(c).Elem()
	for name := range strings.SplitSeq(path, ".") {
		v = v.FieldByNameFunc(func(field string) bool {
			f, _ := v.Type().FieldByName(field)
			return f.Tag.Get("koanf") == name
		})
	}
	return v
}

// same compares two values of a setting; a list that is empty is one that is
// not set.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

// dropped is how many keys were taken from auth.allowed_keys.
func dropped(was, is Config) (n int) {
	for _, key := range was.Auth.AllowedKeys {
		if !slices.Contains(is.Auth.AllowedKeys, key) {
			n++
		}
	}
	return n
}

// shownValue is the value of a setting as a person would write it; secrets are
// masked.
func shownValue(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return shortDuration(value)
	case Secret:
		return value.String()
	case []Secret:
		return fmt.Sprintf("%d, not shown", len(value))
	case []string:
		return strings.Join(value, ", ")
	default:
		return fmt.Sprint(value)
	}
}
