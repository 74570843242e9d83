package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
)

// A start waits for a database server that takes connections and says that it is
// starting, and for no other refusal.
func TestWaitForDatabase_thatIsStarting(t *testing.T) {
	for name, test := range map[string]struct {
		answers []string // SQLSTATEs, the last of them for ever
		want    int32    // how often it asks
	}{
		"starts":          {[]string{"57P03", "57P03", "28P01"}, 3},
		"wrong password":  {[]string{"28P01"}, 1},
		"no more clients": {[]string{"53300"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed below
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = listener.Close() })
			var asked atomic.Int32
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					refuse(conn, func() string {
						n := int(asked.Add(1))
						return test.answers[min(n, len(test.answers))-1]
					})
				}
			}()
			c := Default()
			c.Database.URL = Secret("postgres://u:p@" + listener.Addr().String() + "/d?sslmode=disable")
			if err := waitForDatabase(t.Context(), c, zap.NewNop()); err != nil || asked.Load() != test.want {
				t.Errorf("asked %d times, want %d; %v", asked.Load(), test.want, err)
			}
		})
	}
}

// refuse answers a client's first message with an error of PostgreSQL's, when
// there is one: a look whether the port is open sends nothing.
func refuse(conn net.Conn, state func() string) {
	defer func() { _ = conn.Close() }()
	var length uint32
	if binary.Read(conn, binary.BigEndian, &length) != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, conn, int64(length)-4); err != nil {
		return
	}
	fields := "SFATAL\x00VFATAL\x00C" + state() + "\x00Mno\x00\x00"
	message := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(4+len(fields)))...)
	_, _ = conn.Write(append(message, fields...))
}
