package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/skep-io/skep/runtime/lsm"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"golang.org/x/sys/unix"
)

// The user of the tests' container.
const (
	testUID = 1<<28 + 1000
	testGID = 1<<28 + 1001
)

// newKeeper returns a Keeper with real directories, that runs until stop.
func newKeeper(t *testing.T, s *swarm, dir string) (k *Keeper, stop func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	k, err := New(Config{Dir: dir, ClusterID: s.clusterID, Roots: s.trusted, Ask: s.ask, Logger: slog.New(s)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	return k, func() {
		cancel()
		if err := errors.Join(<-done, k.Close()); err != nil {
			t.Error(err)
		}
	}
}

// provide starts a task, and takes its identity away when the test ends.
func provide(t *testing.T, k *Keeper, id string) string {
	t.Helper()
	dir, err := k.Provide(id, testUID, testGID, lsm.Labels{})
	if err == nil {
		err = k.Await(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeDirectory(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fetch returns the serial number of the SVID that a socket gives.
func fetch(t *testing.T, dir string) string {
	t.Helper()
	c, err := workloadapi.New(t.Context(), workloadapi.WithAddr("unix://"+filepath.Join(dir, socketFile)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing was left to send
	svid, err := c.FetchX509SVID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return svid.Certificates[0].SerialNumber.String()
}

func TestDirectory_IsInMemoryAndTheUsers(t *testing.T) {
	s := newSwarm(t)
	k, stop := newKeeper(t, s, filepath.Join(t.TempDir(), "identity"))
	defer stop()
	dir := provide(t, k, "web")
	var on unix.Statfs_t
	if err := unix.Statfs(dir, &on); err != nil || on.Type != unix.TMPFS_MAGIC && on.Type != unix.RAMFS_MAGIC {
		t.Errorf("W1: it is on a file system of type %x, %v", on.Type, err)
	}
	for name, mode := range map[string]fs.FileMode{
		svidFile: publicMode, keyFile: privateMode, bundleFile: publicMode, socketFile: socketMode, ".": dirMode, currentLink: dirMode,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		owner := info.Sys().(*syscall.Stat_t)
		if info.Mode().Perm() != mode || owner.Uid != testUID || owner.Gid != testGID {
			t.Errorf("%s: mode %v of %d:%d", name, info.Mode(), owner.Uid, owner.Gid)
		}
	}
	if info, err := os.Stat(filepath.Dir(dir)); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others of the node may enter: %v, %v", info.Mode(), err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, svidFile), filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, dir); got != pair.Leaf.SerialNumber.String() {
		t.Errorf("the socket gives SVID %s, the files %s", got, pair.Leaf.SerialNumber)
	}
	if err := k.Withdraw("web"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("I15: left behind: %v", err)
	}
}

func TestDirectory_ReadersFindWhatBelongsTogether(t *testing.T) {
	s := newSwarm(t)
	k, stop := newKeeper(t, s, filepath.Join(t.TempDir(), "identity"))
	defer stop()
	dir := provide(t, k, "web")
	generation, err := filepath.EvalSymlinks(filepath.Join(dir, currentLink))
	if err != nil {
		t.Fatal(err)
	}
	before := fetch(t, dir)
	s.rotate(t)
	for fetch(t, dir) == before { // the renewal is under way
	}
	old, err := tls.LoadX509KeyPair(filepath.Join(generation, svidFile), filepath.Join(generation, keyFile))
	if err != nil || old.Leaf.SerialNumber.String() != before && old.Leaf.SerialNumber.String() != fetch(t, dir) {
		t.Errorf("W3: who began to read before a renewal: %v", err)
	}
	now, err := tls.LoadX509KeyPair(filepath.Join(dir, currentLink, svidFile), filepath.Join(dir, currentLink, keyFile))
	if err != nil || now.Leaf.SerialNumber.String() != fetch(t, dir) {
		t.Errorf("W3: who begins now: %v", err)
	}
}

func TestAdopt_GoesOnWithWhatIsThere(t *testing.T) {
	s, parent := newSwarm(t), t.TempDir()
	k, stop := newKeeper(t, s, parent)
	dir := provide(t, k, "web")
	before := fetch(t, dir)
	gone := provide(t, k, "gone")
	stop()
	if _, err := os.Stat(filepath.Join(dir, svidFile)); err != nil {
		t.Errorf("while no daemon runs: %v", err)
	}
	s.set(errors.New("no manager"))
	lost := filepath.Join(parent, "lost") // as after a start of the machine: a directory that nothing is mounted on
	if err := os.Mkdir(lost, 0o700); err != nil {
		t.Fatal(err)
	}
	k, stop = newKeeper(t, s, parent)
	defer stop()
	if err := k.Adopt([]string{"web", "lost"}); err != nil {
		t.Fatal(err)
	}
	if after := fetch(t, dir); after != before {
		t.Errorf("SVID %s became %s", before, after)
	}
	for _, d := range []string{gone, lost} {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("I15: %s is left: %v", filepath.Base(d), err)
		}
	}
	if err := k.Adopt([]string{"web"}); err != nil || fetch(t, dir) != before {
		t.Errorf("adopted again: %v", err)
	}
}

// TestDirectory_LinksLeadNowhere does what a container could that got its mount writable.
func TestDirectory_LinksLeadNowhere(t *testing.T) {
	outside := t.TempDir()
	prey := filepath.Join(outside, svidFile)
	if err := os.WriteFile(prey, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func(dir string) error{
		"current leads out": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, currentLink)), os.Symlink(outside, filepath.Join(dir, currentLink)))
		},
		"generations lead out": func(dir string) error {
			err := errors.Join(os.RemoveAll(filepath.Join(dir, firstGeneration)), os.RemoveAll(filepath.Join(dir, secondGeneration)))
			return errors.Join(err, os.Symlink(outside, filepath.Join(dir, firstGeneration)), os.Symlink(outside, filepath.Join(dir, secondGeneration)))
		},
		"the socket leads out": func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, socketFile)), os.Symlink(prey, filepath.Join(dir, socketFile)))
		},
		"the new link is a directory": func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, currentLink+".new", "x"), 0o700)
		},
		"a pipe for an SVID": func(dir string) error {
			current := filepath.Join(dir, currentLink)
			return errors.Join(os.Remove(filepath.Join(current, svidFile)), unix.Mkfifo(filepath.Join(current, svidFile), 0o600))
		},
	} {
		t.Run(what, func(t *testing.T) {
			s, parent := newSwarm(t), t.TempDir()
			k, stop := newKeeper(t, s, parent)
			dir := provide(t, k, "web")
			stop()
			if err := spoil(dir); err != nil {
				t.Fatal(err)
			}
			k, stop = newKeeper(t, s, parent)
			defer stop()
			if err := k.Adopt([]string{"web"}); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(outside)
			data, readErr := os.ReadFile(prey)
			info, statErr := os.Stat(prey)
			if err := errors.Join(err, readErr, statErr); err != nil || len(left) != 1 || string(data) != "mine" || info.Mode().Perm() != 0o600 {
				t.Errorf("W4: outside there is %v, %q, %v, %v", left, data, info.Mode(), err)
			}
		})
	}
}

func TestRemoveAll(t *testing.T) {
	s, parent := newSwarm(t), filepath.Join(t.TempDir(), "identity")
	k, stop := newKeeper(t, s, parent)
	provide(t, k, "web")
	provide(t, k, "db")
	stop()
	if err := errors.Join(RemoveAll(parent), RemoveAll(parent)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(parent); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

func TestParseSVID_Refuses(t *testing.T) {
	s := newSwarm(t)
	b, err := newBatch([]string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	if b.answers, err = s.ask(t.Context(), b.requests); err != nil {
		t.Fatal(err)
	}
	chain := b.answers[0].GetCertificate()
	for what, c := range map[string]struct{ chain, key string }{
		"nothing": {"", ""}, "no key": {string(chain), ""}, "a certificate as a key": {string(chain), string(chain)},
		"a key that is none": {string(chain), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
	} {
		if got, err := parseSVID([]byte(c.chain), []byte(c.key)); err == nil || strings.Contains(fmt.Sprint(err), "AAAA") {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}
