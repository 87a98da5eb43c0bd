package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/wal"
)

func workerCredentials(t *testing.T) ca.Credentials {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return catest.Credentials(t, root, ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: api.Role_ROLE_WORKER}, 0)
}

// files returns the names in a data directory.
func files(t *testing.T, d *Daemon) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(d.cfg.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func assertUntouched(t *testing.T, d *Daemon) {
	t.Helper()
	if diff := cmp.Diff([]string{"version"}, files(t, d)); diff != "" {
		t.Errorf("left behind, -want +got:\n%s", diff)
	}
}

func joinToken(t *testing.T) string {
	t.Helper()
	r := catest.NewRegistry(t)
	c, err := r.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Worker.Reveal()
}

// silent is a server that takes connections and says nothing.
func silent(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

func TestEnter_RefusesAPortInUseBeforeAnythingIsWritten(t *testing.T) {
	d := newTestDaemon(t)
	taken := silent(t).Addr().String()
	_, initErr := d.InitSwarm(t.Context(), &api.InitSwarmRequest{ListenAddress: taken})
	_, joinErr := d.JoinSwarm(t.Context(), &api.JoinSwarmRequest{
		ListenAddress: taken, Token: joinToken(t), RemoteAddresses: []string{"127.0.0.1:1"},
	})
	for _, err := range []error{initErr, joinErr} {
		if fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), taken) || !strings.Contains(err.Error(), "--listen-addr") {
			t.Errorf("got %v", err)
		}
	}
	assertUntouched(t, d)
}

func TestJoinSwarm_LeavesNothingWhenItEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		// end ends a join that waits for an answer.
		end  func(t *testing.T, d *Daemon, cancel context.CancelFunc)
		want string
	}{
		{"the caller goes", func(_ *testing.T, _ *Daemon, cancel context.CancelFunc) { cancel() }, "the join was ended"},
		{"leave comes in between", func(t *testing.T, d *Daemon, _ context.CancelFunc) {
			if _, err := d.LeaveSwarm(t.Context(), &api.LeaveSwarmRequest{}); err != nil {
				t.Error(err)
			}
		}, "skep swarm leave"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newTestDaemon(t)
			server := silent(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			done := make(chan error, 1)
			listen := "127.0.0.1:0"
			go func() {
				_, err := d.JoinSwarm(ctx, &api.JoinSwarmRequest{
					ListenAddress: listen, Token: joinToken(t), RemoteAddresses: []string{server.Addr().String()},
				})
				done <- err
			}()
			conn, err := server.Accept() // the join is under way
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			info := &api.GetInfoResponse{}
			if d.describeMembership(info); info.GetState() != api.LocalNodeState_LOCAL_NODE_STATE_PENDING {
				t.Errorf("state %v", info.GetState())
			}
			test.end(t, d, cancel)
			if err := <-done; err == nil || !strings.Contains(err.Error(), test.want) || fault.KindOf(err) != fault.Unavailable {
				t.Errorf("got %v, want %q", err, test.want)
			}
			assertUntouched(t, d)
			if _, err := d.LeaveSwarm(t.Context(), &api.LeaveSwarmRequest{}); !errors.Is(err, errNotMember) {
				t.Errorf("leave: %v", err)
			}
		})
	}
}

func TestJoinFault_HasAKindForEachRefusal(t *testing.T) {
	for sentinel, want := range map[error]fault.Kind{
		token.ErrOtherRoot: fault.Invalid, token.ErrWrongSecret: fault.PermissionDenied, token.ErrMissing: fault.Invalid,
		ca.ErrTooManyTries: fault.Exhausted, ca.ErrBusy: fault.Unavailable, ca.ErrUnreachable: fault.Unavailable, ca.ErrBadServer: fault.Invalid,
	} {
		err := joinFault(t.Context(), fmt.Errorf("192.0.2.1:2377: %w", sentinel))
		if fault.KindOf(err) != want || !strings.Contains(err.Error(), "192.0.2.1:2377") {
			t.Errorf("%v: kind %v, want %v", err, fault.KindOf(err), want)
		}
	}
}

func TestStoreFault_SaysWhatIsDamagedAndTheWayOut(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&wal.CorruptError{What: "log entry", Index: 42, Err: seal.ErrOpen}, "log entry 42 is damaged"},
		{wal.ErrFormat, "version"},
	} {
		err := storeFault(test.err)
		if fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), test.want) || !lasting(err) {
			t.Errorf("got %v, lasting %v, want %q", err, lasting(err), test.want)
		}
	}
	if lasting(errors.New("disk full")) {
		t.Error("a full disk lasts for ever")
	}
}

func TestBackoff_GrowsAndForgets(t *testing.T) {
	b := &backoff{}
	var got []time.Duration
	for range 8 {
		got = append(got, b.next(time.Second))
	}
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := b.next(time.Hour); got != time.Second {
		t.Errorf("after an hour: %v", got)
	}
}

// A crash in the middle of forgetting leaves a node in no swarm, and the rest goes at the next start. A mount point, which can't be
// removed, stops it here.
func TestForget_RemovesTheMembershipFirst(t *testing.T) {
	d := newTestDaemon(t)
	stuck := d.disk.path("certificates")
	if err := errors.Join(d.disk.saveMembership(membership{}), os.Mkdir(stuck, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", stuck, "tmpfs", 0, ""); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err)
	}
	err := d.disk.forget()
	if unmountErr := unix.Unmount(stuck, unix.MNT_DETACH); unmountErr != nil {
		t.Fatal(unmountErr)
	}
	if err == nil {
		t.Error("forgot a mount point")
	}
	if _, ok, err := d.disk.membership(); ok || err != nil {
		t.Errorf("still in a swarm: %v, %v", ok, err)
	}
	for range 2 {
		if err := d.disk.forget(); err != nil {
			t.Error(err)
		}
		assertUntouched(t, d)
	}
}

func TestNotifyReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv(notifyVariable, path)
	if err := notifyReady(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 64)
	n, err := socket.Read(b)
	if err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	t.Setenv(notifyVariable, "")
	if err := notifyReady(); err != nil {
		t.Error(err)
	}
}
