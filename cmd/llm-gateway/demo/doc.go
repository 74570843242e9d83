// Package demo is a built-in model that speaks OpenAI's wire format, so that a gateway without any account can be tried.
// It does not know the gateway, its keys or its limits: it is an ordinary upstream, and it says in every answer that it is a demo.
//
// The same request always gets the same answer, byte for byte. Served are, under any base path that
// ends in /v1: POST chat/completions, completions and embeddings, GET models and models/{id}. Any
// model name is answered and echoed; the list names one, "demo".
//
// # Tokens
//
// A text has as many tokens as it has words between white space, or as it has started groups of four
// UTF-8 bytes, whichever is more. A chat prompt is the sum over its texts plus three for each
// message. So a prompt never has more tokens than bytes of text plus three for each message.
package demo
