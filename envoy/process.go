package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"sigs.k8s.io/yaml"
)

var (
	// ErrDies says that Envoy ends as soon as it is started.
	ErrDies = errors.New("envoy cannot run")
	// ErrAddressInUse says that something else has the listener's address.
	ErrAddressInUse = errors.New("address already in use")
)

const (
	maxQuickDeaths = 5               // in a row; then it is no accident
	quickDeath     = 1 * time.Second // an Envoy that cannot start ends sooner
	healthyLife    = 10 * time.Second
	firstBackOff   = 100 * time.Millisecond
	maxBackOff     = 5 * time.Second
	killAfter      = 5 * time.Second        // between SIGTERM and SIGKILL
	drainPoll      = 20 * time.Millisecond  // pace of asking, no protocol
	pipeGrace      = 500 * time.Millisecond // for output that is still in a pipe
)

// RunOptions is how [Supervise] runs an Envoy.
type RunOptions struct {
	Binary     string // path of the program
	ConfigPath string // the rendered bootstrap, a file in RunDir
	// RunDir gets envoy.pid and envoy.lock (0600) and is made (0700) when it is
	// not there. Two supervisors cannot share one.
	RunDir         string
	Stdout, Stderr io.Writer // get whole lines of JSON; nil discards
	// AdminSocket or AdminAddress is the admin interface of the bootstrap. With
	// neither, Envoy is stopped without draining.
	AdminSocket, AdminAddress string
	Concurrency               int // worker threads; 0 means one per core
	// DrainTime is how long a stop waits for running answers; 0 cuts them.
	DrainTime time.Duration
	LogLevel  string // Envoy's own; default "warning"
	Log       *zap.Logger
}

// Supervise runs Envoy and starts it again when it dies, until ctx ends. Then
// it takes no new connections, waits for running answers up to DrainTime, and
// ends Envoy by SIGTERM and, 5 s later, SIGKILL. An orderly stop returns nil;
// an Envoy that ends five times in a row within a second of its start returns
// an error with Envoy's reason, wrapping [ErrDies], and [ErrAddressInUse] where
// that is the reason. [ErrRunning] says that RunDir has a supervisor.
func Supervise(ctx context.Context, o RunOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(o.RunDir, 0o700); err != nil {
		return fmt.Errorf("make Envoy's run folder: %w", err)
	}
	unlock, err := lockRunDir(o.RunDir)
	if err != nil {
		return err
	}
	defer unlock()
	var deaths deathCount
	for {
		started := time.Now()
		stopped, err := o.runOnce(ctx)
		if stopped {
			return nil
		}
		wait, giveUp := deaths.next(time.Since(started))
		if giveUp {
			return fmt.Errorf("%w: %w", ErrDies, err)
		}
		o.Log.Error("envoy ended, starting it again", zap.Error(err), zap.Duration("wait", wait))
		pause := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

func (o *RunOptions) check() error {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.LogLevel == "" {
		o.LogLevel = "warning"
	}
	if filepath.Dir(filepath.Clean(o.ConfigPath)) != filepath.Clean(o.RunDir) {
		return fmt.Errorf("%w: the configuration %q must be a file in the run folder %q, by which a stale Envoy is recognised", ErrOptions, o.ConfigPath, o.RunDir)
	}
	return nil
}

// runOnce is the life of one Envoy. It reports whether the end was ours, and
// otherwise why it came.
func (o *RunOptions) runOnce(ctx context.Context) (stopped bool, err error) {
	if ctx.Err() != nil {
		return true, nil
	}
	if err := o.addressFree(ctx); err != nil {
		return false, err
	}
	stdout, stderr := &lineWriter{to: o.Stdout, now: time.Now}, &lineWriter{to: o.Stderr, now: time.Now}
	p, err := startProcess(o.command(stdout, stderr))
	if err != nil {
		return false, fmt.Errorf("start Envoy: %w", err)
	}
	pidFile := pidPath(o.RunDir)
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(p.pid())+"\n"), 0o600); err != nil {
		p.Signal(syscall.SIGKILL)
		<-p.done
		return false, fmt.Errorf("write Envoy's pid file: %w", err)
	}
	defer func() { _ = os.Remove(pidFile) }() // one that stays names a process that is gone
	o.Log.Info("envoy started", zap.Int("pid", p.pid()), zap.String("binary", o.Binary))
	select {
	case <-ctx.Done():
		o.stop(ctx, p)
		stopped = true
	case <-p.done:
	}
	stdout.flush()
	stderr.flush()
	if stopped {
		o.Log.Info("envoy stopped")
		return true, nil
	}
	err = fmt.Errorf("%v: %s", p.state(), reasonOf(stderr.lines()))
	if strings.Contains(err.Error(), "Address already in use") {
		err = fmt.Errorf("%w: %w", ErrAddressInUse, err)
	}
	return false, err
}

func (o *RunOptions) command(stdout, stderr io.Writer) *exec.Cmd {
	args := []string{"--config-path", o.ConfigPath, "--disable-hot-restart", "--log-level", o.LogLevel}
	if o.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	cmd := exec.Command(o.Binary, args...)
	cmd.Env = childEnv()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = pipeGrace
	cmd.SysProcAttr = childAttributes()
	return cmd
}

// stop ends Envoy after the answers that are under way.
func (o *RunOptions) stop(ctx context.Context, p *process) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.DrainTime)
	defer cancel()
	o.drain(ctx, p)
	p.end(killAfter)
}

func (o *RunOptions) drain(ctx context.Context, p *process) {
	admin := Admin{Socket: o.AdminSocket, Address: o.AdminAddress}
	if admin == (Admin{}) || o.DrainTime <= 0 {
		return
	}
	if err := admin.drain(ctx); err != nil {
		o.Log.Warn("envoy does not drain, stopping it at once", zap.Error(err))
		return
	}
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for {
		active, err := admin.Stat(ctx, "http."+statPrefix+".downstream_rq_active")
		if err == nil && active == 0 {
			return
		}
		select {
		case <-p.done:
			return
		case <-ctx.Done():
			o.Log.Warn("envoy still has running answers, stopping it", zap.Int64("active", active))
			return
		case <-ticker.C:
		}
	}
}

// addressFree fails when somebody listens where this Envoy is to listen. Envoy
// would not: its sockets have SO_REUSEPORT, and the kernel would deal the
// connections out between two gateways.
func (o *RunOptions) addressFree(ctx context.Context) error {
	text, err := os.ReadFile(o.ConfigPath)
	if err != nil {
		return fmt.Errorf("read Envoy's configuration: %w", err)
	}
	for _, address := range listeningAddresses(text) {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%w: %s: stop the program that listens there, or choose another address", ErrAddressInUse, address)
		}
		if err == nil {
			_ = l.Close()
		}
		// Anything else is Envoy's to judge: it may have rights we lack.
	}
	return nil
}

// listeningAddresses reads host:port of every listener in a bootstrap.
func listeningAddresses(config []byte) []string {
	var b struct {
		StaticResources struct {
			Listeners []struct {
				Address struct {
					SocketAddress struct {
						Address string `json:"address"`
						Port    uint32 `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
			} `json:"listeners"`
		} `json:"static_resources"`
	}
	if yaml.Unmarshal(config, &b) != nil {
		return nil // Envoy will say what is wrong with it
	}
	var list []string
	for _, l := range b.StaticResources.Listeners {
		if a := l.Address.SocketAddress; a.Port != 0 {
			list = append(list, net.JoinHostPort(a.Address, strconv.FormatUint(uint64(a.Port), 10)))
		}
	}
	return list
}

// deathCount decides how soon the next start may be.
type deathCount struct {
	quick   int
	backOff time.Duration
}

// next is told how long an Envoy lived.
func (d *deathCount) next(lived time.Duration) (wait time.Duration, giveUp bool) {
	if lived < quickDeath {
		d.quick++
	} else {
		d.quick = 0
	}
	if lived >= healthyLife || d.backOff == 0 {
		d.backOff = firstBackOff
	} else {
		d.backOff = min(2*d.backOff, maxBackOff)
	}
	return d.backOff, d.quick >= maxQuickDeaths
}

// process is a started child.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
}

// startProcess starts cmd on a thread of its own that lives as long as the
// child. The kernel ties the child to the thread that made it, not to the
// process (PR_SET_PDEATHSIG): on a thread of Go's pool, Envoy would be killed
// whenever the runtime retires that thread.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in cmd.ProcessState
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// Signal is without effect on a process that has ended.
func (p *process) Signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// state describes the end; only after done.
func (p *process) state() string {
	if s := p.cmd.ProcessState; s != nil {
		return s.String()
	}
	return "unknown end"
}

// end asks, then insists.
func (p *process) end(patience time.Duration) {
	p.Signal(syscall.SIGTERM)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Signal(syscall.SIGKILL)
		<-p.done
	}
}
