package rig

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Wire is an answer to a hand-made request. Status is 0 when the server sent
// none before it closed or reset.
type Wire struct {
	Status int
	Header http.Header
	Body   []byte
}

// SendH1 writes bytes to a fresh connection and reads one answer.
func SendH1(addr string, request []byte, limit time.Duration) (Wire, error) {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return Wire{}, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return Wire{}, err
	}
	if _, err := conn.Write(request); err != nil {
		return Wire{}, err
	}
	method, _, _ := strings.Cut(string(request), " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		if closed(err) {
			return Wire{}, nil
		}
		return Wire{}, err
	}
	defer func() { _ = res.Body.Close() }()
	out := Wire{Status: res.StatusCode, Header: res.Header}
	out.Body, err = io.ReadAll(res.Body)
	return out, err
}

// SendH2 sends one HTTP/2 request with exactly these header fields (pseudo
// headers first) and reads its answer.
func SendH2(addr string, fields []hpack.HeaderField, body []byte, limit time.Duration) (Wire, error) {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return Wire{}, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return Wire{}, err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := writeH2(conn, framer, fields, body); err != nil {
		return Wire{}, err
	}
	return readH2(framer)
}

func writeH2(conn io.Writer, framer *http2.Framer, fields []hpack.HeaderField, body []byte) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range fields {
		if err := enc.WriteField(f); err != nil {
			return err
		}
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: len(body) == 0,
	}); err != nil || len(body) == 0 {
		return err
	}
	return framer.WriteData(1, true, body)
}

func readH2(framer *http2.Framer) (Wire, error) {
	out := Wire{Header: http.Header{}}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			if closed(err) {
				return out, nil
			}
			return out, err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					return out, err
				}
			}
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == ":status" {
					if out.Status, err = strconv.Atoi(h.Value); err != nil {
						return out, fmt.Errorf("status %q: %w", h.Value, err)
					}
					continue
				}
				out.Header.Add(h.Name, h.Value)
			}
			if f.StreamEnded() {
				return out, nil
			}
		case *http2.DataFrame:
			out.Body = append(out.Body, f.Data()...)
			if f.StreamEnded() {
				return out, nil
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return out, nil
		}
	}
}

// closed tells that the peer ended the connection instead of answering.
func closed(err error) bool {
	s := err.Error()
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(s, "reset by peer") ||
		strings.Contains(s, "broken pipe") || strings.Contains(s, "EOF")
}
