package rig

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy that fails on cue.
type Proxy struct {
	Addr string

	to string
	l  net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	mode  proxyMode
	delay time.Duration
	up    chan struct{} // closed when a black hole ends
}

type proxyMode int

const (
	proxyPass proxyMode = iota
	proxyHole
	proxyRefuse
)

// StartProxy runs a proxy to an address until the test ends.
func StartProxy(t testing.TB, to string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), to: to, l: l, conns: map[net.Conn]struct{}{}, up: make(chan struct{})}
	close(p.up)
	go p.accept()
	t.Cleanup(func() {
		_ = l.Close()
		p.Pass()
		p.Cut()
	})
	return p
}

// Pass forwards, as at the start.
func (p *Proxy) Pass() { p.set(proxyPass, 0) }

// Slow forwards every piece, in both directions, that much later.
func (p *Proxy) Slow(delay time.Duration) { p.set(proxyPass, delay) }

// Hole accepts everything and forwards nothing, old connections included.
func (p *Proxy) Hole() { p.set(proxyHole, 0) }

// Refuse resets old connections, and new ones as soon as they are there.
func (p *Proxy) Refuse() {
	p.set(proxyRefuse, 0)
	p.Cut()
}

// Cut resets all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
	}
}

func (p *Proxy) set(mode proxyMode, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch wasHole := p.mode == proxyHole; {
	case wasHole && mode != proxyHole:
		close(p.up)
	case !wasHole && mode == proxyHole:
		p.up = make(chan struct{})
	}
	p.mode, p.delay = mode, delay
}

func (p *Proxy) state() (proxyMode, time.Duration, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mode, p.delay, p.up
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		go p.serve(c)
	}
}

func (p *Proxy) serve(client net.Conn) {
	mode, _, _ := p.state()
	if mode == proxyRefuse {
		reset(client)
		return
	}
	server, err := net.DialTimeout("tcp", p.to, 5*time.Second)
	if err != nil {
		reset(client)
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client) })
	both.Go(func() { p.copy(client, server) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

func (p *Proxy) copy(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_, delay, up := p.state()
			<-up
			if delay > 0 {
				time.Sleep(delay)
			}
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				reset(to)
			}
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}
