package main

import (
	"fmt"

	"github.com/MaksimVF/llm-gateway/billing"
)

// preflight looks at what the configuration names on this machine, before a
// gateway makes anything there: a start that cannot succeed leaves nothing
// behind. withEnvoy says that Envoy runs here, too.
func (c Config) preflight(from origins, withEnvoy bool) (problems mistakes) {
	if _, err := checkData(c.Data); err != nil {
		problems = append(problems, fmt.Sprintf("%s: %v", from.of("data"), err))
	} else if err := billing.Look(c.billingOptions(nil)); err != nil {
		origin := from.of("data")
		if c.Database.URL != "" {
			origin = from.of("database.url")
		}
		problems = append(problems, fmt.Sprintf("%s: %v", origin, err))
	}
	return append(problems, c.certificates(from, withEnvoy)...)
}

// certificates are the mistakes in files of certificates. That of the model
// server is on Envoy's machine, which need not be this one.
func (c Config) certificates(from origins, withEnvoy bool) (problems mistakes) {
	files := map[string]string{"redis.ca_file": c.Redis.CAFile}
	if withEnvoy {
		files["upstream.ca_file"] = c.Upstream.CAFile
	}
	for _, s := range settings() {
		if _, err := caPool(from.of(s.path), files[s.path]); err != nil {
			problems = append(problems, err.Error())
		}
	}
	return problems
}

// asError is nil without mistakes.
func (m mistakes) asError() error {
	if len(m) == 0 {
		return nil
	}
	return m
}
