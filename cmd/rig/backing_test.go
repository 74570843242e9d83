package rig

import (
	"strings"
	"testing"
	"time"
)

func TestRedis_restartIsEmpty(t *testing.T) {
	r := StartRedis(t)
	if a, err := r.Command("SET a 1"); err != nil || a != "OK" {
		t.Fatal(a, err)
	}
	r.Kill()
	if _, err := r.Command("PING"); err == nil {
		t.Fatal("a killed server answers")
	}
	r.Restart()
	if a, err := r.Command("EXISTS a"); err != nil || a != "0" {
		t.Fatal(a, err)
	}
	if _, err := r.Command("NONSENSE"); err == nil {
		t.Fatal("an error answer is no error")
	}
}

func TestPostgres_killedServerKeepsWhatWasCommitted(t *testing.T) {
	p := StartPostgres(t)
	url := p.NewDatabase()
	if !strings.Contains(url, "/books1?") {
		t.Fatal(url)
	}
	if out, err := p.SQL("books1", "CREATE TABLE a (n int); INSERT INTO a VALUES (7)"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	p.KillAll()
	if _, err := p.SQL("books1", "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	p.Restart()
	if out, err := p.SQL("books1", "SELECT n FROM a"); err != nil || strings.TrimSpace(string(out)) != "7" {
		t.Fatalf("%q %v", out, err)
	}
}

func TestProxy(t *testing.T) {
	r := StartRedis(t)
	p := StartProxy(t, r.Addr)
	behind := &Redis{Addr: p.Addr}
	if a, err := behind.Command("PING"); err != nil || a != "PONG" {
		t.Fatal(a, err)
	}
	p.Slow(30 * time.Millisecond)
	began := time.Now()
	if _, err := behind.Command("PING"); err != nil || time.Since(began) < 60*time.Millisecond {
		t.Fatal(err, time.Since(began))
	}
	p.Hole()
	answered := make(chan error, 1)
	go func() {
		_, err := behind.Command("PING")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatal("a black hole answers", err)
	case <-time.After(100 * time.Millisecond):
	}
	p.Pass()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	p.Refuse()
	if _, err := behind.Command("PING"); err == nil {
		t.Fatal("a refusing proxy answers")
	}
}
