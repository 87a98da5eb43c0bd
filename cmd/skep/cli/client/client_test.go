package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
)

// daemon answers GetInfo with the planned errors, then well, and remembers the request ids; its swarm has many tasks, with 100 MB of specs.
type daemon struct {
	api.UnimplementedDaemonServer
	api.UnimplementedControlServer
	mu   sync.Mutex
	errs []error
	ids  []string
}

func (d *daemon) GetInfo(ctx context.Context, _ *api.GetInfoRequest) (*api.GetInfoResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	d.ids = append(d.ids, strings.Join(md.Get(client.RequestIDKey), ","))
	if len(d.errs) > 0 {
		err := d.errs[0]
		d.errs = d.errs[1:]
		return nil, err
	}
	return &api.GetInfoResponse{}, nil
}

func (d *daemon) ListTasks(context.Context, *api.ListTasksRequest) (*api.ListTasksResponse, error) {
	task := &api.Task{Id: "t", Spec: &api.TaskSpec{Container: &api.ContainerSpec{Env: []string{strings.Repeat("x", 20_000)}}}}
	return &api.ListTasksResponse{Tasks: slices.Repeat([]*api.Task{task}, 5_000)}, nil
}

// serve serves d and returns a client of it.
func serve(t *testing.T, d *daemon, pause time.Duration) *client.Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterDaemonServer(server, d)
	api.RegisterControlServer(server, d)
	grpctest.Serve(t, server, listener)
	return dial(t, "unix://"+socket, pause)
}

func dial(t *testing.T, host string, pause time.Duration) *client.Client {
	t.Helper()
	c, err := client.Dial(client.Endpoint{Host: host}, pause)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestCall_IsRepeatedOnceWithTheSameID(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "no leader")
	for name, test := range map[string]struct {
		errs  []error
		calls int
		kind  fault.Kind
	}{
		"served":              {nil, 1, fault.Internal},
		"unavailable once":    {[]error{unavailable}, 2, fault.Internal},
		"unavailable twice":   {[]error{unavailable, unavailable}, 2, fault.Unavailable},
		"no leader is known":  {[]error{fault.Status(fault.NewNotLeader(""))}, 2, fault.Internal},
		"refused":             {[]error{status.Error(codes.AlreadyExists, "taken")}, 1, fault.AlreadyExists},
		"too late to know it": {[]error{status.Error(codes.DeadlineExceeded, "slow")}, 1, fault.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			d := &daemon{errs: test.errs}
			_, err := serve(t, d, time.Nanosecond).Daemon.GetInfo(t.Context(), &api.GetInfoRequest{})
			if (err == nil) != (test.kind == fault.Internal) || fault.KindOf(err) != test.kind {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "rpc error") {
				t.Errorf("%q is no text for people", err)
			}
			if len(d.ids) != test.calls || len(slices.Compact(d.ids)) != 1 || len(d.ids[0]) != 32 {
				t.Errorf("got the request ids %q, want %d times the same 128 bit", d.ids, test.calls)
			}
		})
	}
}

func TestCalls_HaveDifferentIDs(t *testing.T) {
	d := &daemon{}
	c := serve(t, d, time.Nanosecond)
	for range 2 {
		if _, err := c.Daemon.GetInfo(t.Context(), &api.GetInfoRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if d.ids[0] == d.ids[1] {
		t.Errorf("both calls have the id %s", d.ids[0])
	}
}

func TestCall_TakesTheTasksOfALargeSwarm(t *testing.T) {
	answer, err := serve(t, &daemon{}, time.Nanosecond).Control.ListTasks(t.Context(), &api.ListTasksRequest{})
	if got := len(answer.GetTasks()); got != 5_000 || err != nil {
		t.Errorf("got %d tasks, %v", got, err)
	}
}

func TestCall_IsNotRepeatedForACallerWhoLeft(t *testing.T) {
	d := &daemon{errs: []error{status.Error(codes.Unavailable, "no leader")}}
	c := serve(t, d, time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{}); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestCall_SaysThatNobodyListens(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	listener, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for _, socket := range []string{filepath.Join(dir, "missing"), dead} {
		_, err := dial(t, "unix://"+socket, time.Hour).Daemon.GetInfo(t.Context(), &api.GetInfoRequest{})
		if !errors.Is(err, client.ErrUnreachable) || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("got %v", err)
		}
		if want := "Cannot connect to the skep daemon at unix://" + socket + ". Is `skep daemon` running?"; err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestCall_SaysWhoMayOpenTheSocket(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may open every socket: run as another user")
	}
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := os.Chmod(socket, 0); err != nil {
		t.Fatal(err)
	}
	_, err = dial(t, "unix://"+socket, time.Hour).Daemon.GetInfo(t.Context(), &api.GetInfoRequest{})
	if !errors.Is(err, client.ErrNotAllowed) || !strings.Contains(err.Error(), "group skep") {
		t.Errorf("got %v", err)
	}
}

func TestDial_RefusesOtherHosts(t *testing.T) {
	for _, host := range []string{"", "tcp://", "tcp://10.0.0.1/x", "ssh://10.0.0.1", "/run/skep.sock", "unix://run/skep.sock"} {
		_, err := client.Dial(client.Endpoint{Host: host}, 0)
		if !errors.Is(err, client.ErrHost) || fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v", host, err)
		}
	}
}
