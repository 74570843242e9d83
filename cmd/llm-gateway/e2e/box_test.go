//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/MaksimVF/llm-gateway/cmd/rig"
)

// box is a container without an engine: a root of deploy/Dockerfile's kind, and no
// right but to write /tmp and /data.
type box struct {
	t          *testing.T
	root, data string // on this machine; data is "none" for the image that has no volume
	uid, gid   int
	binary     string // runs the program in it
}

// The places of the programs in the images.
const (
	gatewayInBox = "/usr/local/bin/llm-gateway"
	envoyInBox   = "/usr/local/bin/envoy"
	setprivInBox = "/usr/local/bin/setpriv" // which takes the rights away, and is in no image
)

// newRoot makes what the images have: the programs, and what they are linked
// against. Boxes can share it, nobody writes to it.
func newRoot(t *testing.T, g *gateway) string {
	t.Helper()
	if os.Getuid() != 0 {
		rig.Needed(t, "mounting a root file system takes root: run this test as root")
	}
	root := filepath.Join(g.dir, "root")
	setpriv := rig.Tool(t, "setpriv")
	for at, from := range map[string]string{gatewayInBox: g.cli.Binary, envoyInBox: g.envoyBinary, setprivInBox: setpriv} {
		place(t, root, from, at)
	}
	for _, program := range []string{g.envoyBinary, setpriv} {
		for _, library := range libraries(t, program) {
			place(t, root, library, library)
		}
	}
	for _, folder := range []string{"tmp", "proc", "dev/shm", "data"} {
		makeFolder(t, filepath.Join(root, folder))
	}
	for _, device := range []string{"null", "zero", "random", "urandom"} {
		writeFile(t, filepath.Join(root, "dev", device), "", 0o600)
	}
	return root
}

// newBox makes a box of root, with a volume that its user may write.
func newBox(t *testing.T, root string, uid, gid int) *box {
	t.Helper()
	b := newBoxWithoutData(t, root, uid, gid)
	b.data = filepath.Join(filepath.Dir(b.binary), "volume")
	makeFolder(t, b.data)
	if err := errors.Join(os.Chown(b.data, uid, gid), os.Chmod(b.data, 0o700)); err != nil {
		t.Fatal(err)
	}
	b.script()
	return b
}

// newBoxWithoutData is one as the image `envoy` has it.
func newBoxWithoutData(t *testing.T, root string, uid, gid int) *box {
	t.Helper()
	b := &box{t: t, root: root, data: "none", uid: uid, gid: gid, binary: filepath.Join(t.TempDir(), "in-the-box")}
	b.script()
	return b
}

// script writes a program that runs the gateway's in the box: the rig starts
// programs, not command lines.
func (b *box) script() {
	b.t.Helper()
	inside, err := filepath.Abs("testdata/box.sh")
	if err != nil {
		b.t.Fatal(err)
	}
	writeFile(b.t, b.binary, fmt.Sprintf("#!/bin/sh\nexec %s --mount --pid --fork --kill-child /bin/sh '%s' '%s' '%s' %d:%d %s \"$@\"\n",
		rig.Tool(b.t, "unshare"), inside, b.root, b.data, b.uid, b.gid, gatewayInBox), 0o700)
}

func makeFolder(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// place copies a file to its place in a root, links followed.
func place(t *testing.T, root, from, at string) {
	t.Helper()
	at = filepath.Join(root, at)
	makeFolder(t, filepath.Dir(at))
	if out, err := exec.CommandContext(t.Context(), "cp", "-L", from, at).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(at, 0o755); err != nil {
		t.Fatal(err)
	}
}

// libraries are what a program is linked against, the loader included.
func libraries(t *testing.T, program string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), rig.Tool(t, "ldd"), program).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", program, err)
	}
	return regexp.MustCompile(`/[^ \n]+`).FindAllString(string(out), -1)
}

// first is the process in the box whose parent is the rig's: process 1 there.
func (b *box) first(p *rig.Process) int {
	b.t.Helper()
	kids, err := rig.Children(p.Pid)
	if err != nil || len(kids) != 1 {
		b.t.Fatalf("processes of the box: %v, %v", kids, err)
	}
	return kids[0]
}

// stop ends what p runs in the box by SIGTERM; unshare waits and passes on how.
func (b *box) stop(p *rig.Process) {
	b.t.Helper()
	if err := syscall.Kill(b.first(p), syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
	if code, err := p.Wait(20 * time.Second); err != nil || code != 0 {
		b.t.Fatalf("after SIGTERM: exit %d, %v\n%s", code, err, p.Tail(20))
	}
}

// confined holds what the kernel says of the processes against what they may
// have. It returns how many there are.
func (b *box) confined(p *rig.Process) int {
	b.t.Helper()
	first := b.first(p)
	kids, err := rig.Children(first)
	if err != nil {
		b.t.Fatal(err)
	}
	const none = "0000000000000000"
	uid, gid := strconv.Itoa(b.uid), strconv.Itoa(b.gid)
	want := map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1", "Groups": "",
		"Uid": strings.Join([]string{uid, uid, uid, uid}, " "), "Gid": strings.Join([]string{gid, gid, gid, gid}, " "),
	}
	all := append(kids, first)
	for _, pid := range all {
		got := map[string]string{}
		for line := range strings.Lines(b.proc(pid, "status")) {
			name, value, _ := strings.Cut(line, ":")
			if _, ok := want[name]; ok {
				got[name] = strings.Join(strings.Fields(value), " ")
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			b.t.Errorf("%s (-want +got):\n%s", rig.Command(pid), diff)
		}
	}
	writable := []string{"/tmp"}
	if b.data != "none" {
		writable = []string{"/data", "/tmp"}
	}
	var got []string
	for line := range strings.Lines(b.proc(first, "mountinfo")) {
		// Of a mount that is not in this root, the kernel says nothing here.
		at, options := strings.Fields(line)[4], strings.Fields(line)[5]
		if strings.HasPrefix(options, "rw") && at != "/proc" && !strings.HasPrefix(at, "/dev/") {
			got = append(got, at)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(writable, got); diff != "" {
		b.t.Errorf("what can be written (-want +got):\n%s", diff)
	}
	return len(all)
}

func (b *box) proc(pid int, name string) string {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}
