package main

import (
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// The log is one JSON object a line. Besides ts (RFC 3339, UTC, milliseconds),
// level, msg and logger, fields have these names and no others for the same
// thing. Keys, prompts, answers and query strings are never fields.
//
//	request_id         Envoy's x-request-id
//	key_id             public id of a key
//	model              model of the request
//	prompt_tokens      tokens of the request
//	completion_tokens  tokens of the answer
//	total_tokens       their sum
//	provenance         where a token count comes from
//	hold_id            id of a hold, and of its charge
//	duration_ms        how long something took
//	error              what went wrong
//
// Others:
//
//	budget, limit_tokens, used_tokens, resets_in_ms  a budget of which 90 % are used
//	component                                        a part that GET /health tells about
//	file, note, added, updated, unchanged, revoked   keys of a keys.json, imported at the start
//	action, remote, reason, before, after            what an operator changed over HTTP, or was refused
//	changed, settings, keys                          paths of settings that a reload changed or could not change; keys no longer listed
//
// The line "request" is written once for each request that the gate was asked
// about, when it has ended:
//
//	key                 masked key
//	method, path        of the request; the path without its query
//	endpoint            name in OpenAI's API reference, "other" for unknown paths
//	stream              whether a stream was asked for
//	status              that the client got, 0 = it had left
//	ending              served, refused, upstream_error, upstream_unreachable, upstream_timeout, aborted, failed
//	code, limit         of a refusal: error code, and the limit that refused
//	cached_tokens       part of prompt_tokens
//	reasoning_tokens    part of completion_tokens
//	held_tokens         what was held for it
//	rate_limit_storage  that decided: redis or memory
//	admission_ms        limits and hold
//	first_byte_ms       until the answer began
//	settle_ms           until the charge was durable
//	answer_model, note  where the answer named another model, or was odd
const logTime = "2006-01-02T15:04:05.000Z07:00"

// logger is the log of a command, on stderr, without the secrets of its
// configuration.
func (a *app) logger(c Config) (*zap.Logger, error) {
	log, _, err := a.controlledLogger(c)
	return log, err
}

// controlledLogger is a logger that can be changed while it is in use.
func (a *app) controlledLogger(c Config) (*zap.Logger, *logControl, error) {
	level, err := zap.ParseAtomicLevel(c.Log.Level)
	if err != nil {
		return nil, nil, fmt.Errorf("log level: %w", err)
	}
	control := &logControl{level: level, out: newScrubber(a.stderr, c.secrets())}
	return newLogger(control.out, level), control, nil
}

// logControl is what a new configuration changes in a log.
type logControl struct {
	level zap.AtomicLevel
	out   *scrubber
}

// hide keeps the secrets of these configurations out of the log from now on.
func (l *logControl) hide(configs ...Config) {
	var secrets []Secret
	for i := range configs {
		secrets = append(secrets, configs[i].secrets()...)
	}
	l.out.hide(secrets)
}

// openFor makes the log at least as talkative as level, which it returns for the
// caller to set afterwards.
func (l *logControl) openFor(level string) zapcore.Level {
	next, err := zapcore.ParseLevel(level)
	if err != nil {
		return l.level.Level() // the configuration knows no such level
	}
	l.level.SetLevel(min(l.level.Level(), next))
	return next
}

// newLogger builds the log of the process on w. Nothing is sampled: a log that
// leaves lines out cannot be used to reconstruct what happened to a request.
func newLogger(w io.Writer, at zapcore.LevelEnabler) *zap.Logger {
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		TimeKey:     "ts",
		LevelKey:    "level",
		MessageKey:  "msg",
		NameKey:     "logger",
		LineEnding:  zapcore.DefaultLineEnding,
		EncodeLevel: zapcore.LowercaseLevelEncoder,
		EncodeTime:  func(t time.Time, e zapcore.PrimitiveArrayEncoder) { e.AppendString(t.UTC().Format(logTime)) },
		EncodeDuration: func(d time.Duration, e zapcore.PrimitiveArrayEncoder) {
			e.AppendFloat64(float64(d.Microseconds()) / 1000)
		},
	})
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), at))
}
