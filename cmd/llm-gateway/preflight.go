package main

import "github.com/MaksimVF/llm-gateway/billing"

// preflight looks at what the configuration names on this machine, before a
// gateway makes anything there: a start that cannot succeed leaves nothing
// behind. withEnvoy says that Envoy runs here, too.
func (c Config) preflight(from origins, withEnvoy bool) (problems mistakes) {
	if _, err := checkData(c.Data); err != nil {
		problems = append(problems, from.blame("data", err).Error())
	} else if err := c.lookForBooks(from); err != nil {
		problems = append(problems, err.Error())
	}
	return append(problems, c.certificates(from, withEnvoy)...)
}

// lookForBooks says why the books cannot be where they should be. The file is
// named by one setting or, by default, the other.
func (c Config) lookForBooks(from origins) error {
	path := "database.url"
	if c.Database.URL == "" {
		path = "data"
	}
	return from.blame(path, billing.Look(c.billingOptions(nil)))
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
