package main

import (
	"bytes"
	"io"
	"net/url"
	"regexp"
	"sync/atomic"
)

// minScrubbed is the shortest configured secret that is looked for: a shorter
// one would be found inside of ordinary words.
const minScrubbed = 8

// keyLike is what client keys and those of model servers look like, ours and
// OpenAI's. Masked ones are too short to match.
var keyLike = regexp.MustCompile(`sk-[A-Za-z0-9_-]{16,}`)

// scrubber takes secrets out of what is written to the log. It is a second line:
// nothing that could be one is logged in the first place, but clients choose
// paths and model names, and libraries their error texts.
type scrubber struct {
	to      io.Writer
	secrets atomic.Pointer[[][]byte]
}

// newScrubber looks for the secrets of the configuration, and for everything
// that has the form of a key.
func newScrubber(to io.Writer, secrets []Secret) *scrubber {
	s := &scrubber{to: to}
	s.hide(secrets)
	return s
}

// hide exchanges the secrets that are looked for. It may be called while lines
// are written.
func (s *scrubber) hide(secrets []Secret) {
	list, seen := [][]byte{}, map[Secret]bool{}
	for _, secret := range secrets {
		if len(secret) >= minScrubbed && !seen[secret] {
			seen[secret] = true
			list = append(list, []byte(secret.Reveal()))
		}
	}
	s.secrets.Store(&list)
}

// Write passes whole lines on.
func (s *scrubber) Write(line []byte) (int, error) {
	clean := line
	for _, secret := range *s.secrets.Load() {
		if bytes.Contains(clean, secret) {
			clean = bytes.ReplaceAll(clean, secret, []byte(masked))
		}
	}
	if bytes.Contains(clean, []byte("sk-")) {
		clean = keyLike.ReplaceAll(clean, []byte("sk-"+masked))
	}
	if _, err := s.to.Write(clean); err != nil {
		return 0, err
	}
	return len(line), nil
}

// secrets are the configuration's, for the scrubber.
func (c Config) secrets() []Secret {
	return append([]Secret{
		c.Upstream.APIKey, c.Auth.Pepper, c.Admin.Token, c.Redis.Password, passwordOf(c.Redis.URL), passwordOf(c.Database.URL), c.Redis.URL, c.Database.URL,
	}, c.Auth.AllowedKeys...)
}

// passwordOf is the password in a URL, "" for none.
func passwordOf(text Secret) Secret {
	u, err := url.Parse(text.Reveal())
	if err != nil || u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	return Secret(password)
}
