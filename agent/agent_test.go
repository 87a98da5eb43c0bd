package agent_test

import (
	"context"
	"io"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/agent/images"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

func TestAgent_RunsWhatManagersAssign(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	tk := n.task("t1", "show", "/run/secrets/db")
	tk.Spec.Container.Secrets = []*api.SecretReference{{SecretId: "x1", SecretName: "db"}}
	m.assign(update(tk), &api.AssignmentChange{
		Action: api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE,
		Object: &api.AssignmentChange_Secret{Secret: &api.Secret{Id: "x1", Spec: &api.SecretSpec{Data: []byte(canary)}}},
	}, update(newTask("elsewhere", "serve")))
	m.awaitStatus(t, "t1", "COMPLETE")
	long := n.task("t2", "serve")
	m.assign(update(long))
	m.awaitStatus(t, "t2", "RUNNING")

	c := m.agentClient(t, n)
	lines := readLogs(t, c, &api.ReadTaskLogsRequest{TaskIds: []string{"t1"}, Options: &api.LogOptions{Tail: -1, Follow: true}})
	if !strings.Contains(lines, canary) {
		t.Errorf("the log is %q", lines)
	}
	long.DesiredState = api.TaskState_TASK_STATE_REMOVE
	m.assign(update(long))
	m.awaitStatus(t, "t2", "SHUTDOWN")
	m.assign(remove(tk), remove(long))
	if err := n.agent.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := n.leftovers(t, "t1"); len(left) > 0 {
		t.Errorf("I15: left behind: %q", left)
	}
	for _, path := range findText(t, n.dir, canary) {
		t.Errorf("E3: the secret is in %s", path)
	}
	if got := m.statuses["elsewhere"]; got != nil {
		t.Errorf("I7: the node took a task of another one: %q", got)
	}
}

// readLogs returns all lines until the stream ends.
func readLogs(t *testing.T, c api.AgentClient, r *api.ReadTaskLogsRequest) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := c.ReadTaskLogs(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Write(m.GetLine().GetData())
	}
}

func TestAgent_ContinuesAfterARestart(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	runs, ends := n.task("runs", "serve"), n.task("ends", "serve")
	m.assign(update(runs), update(ends))
	m.awaitStatus(t, "runs", "RUNNING")
	m.awaitStatus(t, "ends", "RUNNING")
	before, err := n.client.State(t.Context(), "runs")
	if err != nil {
		t.Fatal(err)
	}
	n.end()
	if err := n.client.Kill(t.Context(), "ends", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.forget()
	n.begin()
	m.awaitStatus(t, "ends", "FAILED task: non-zero exit (137) exit=137")
	m.awaitStatus(t, "runs", "RUNNING")
	after, err := n.client.State(t.Context(), "runs")
	if err != nil || after.Pid != before.Pid {
		t.Errorf("the container of pid %d is now %d, %v", before.Pid, after.Pid, err)
	}
	if got := n.agent.Running(); got != 1 {
		t.Errorf("%d tasks run", got)
	}
	if err := n.agent.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAgent_HandsOutAndFetchesImages(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	m.await(t, "the node's images", func() bool {
		for _, d := range m.described {
			return len(d.GetImages()) == 1 && d.GetResources().GetMemoryBytes() > 0
		}
		return false
	})
	d, err := n.images.Resolve(t.Context(), probeImage)
	if err != nil {
		t.Fatal(err)
	}
	store := emptyStore(t)
	holders := []*api.ImageHolder{{NodeId: "self", PeerAddress: n.peer}, {NodeId: "other", PeerAddress: "127.0.0.1:1"}}
	peer := &images.Peer{
		Store: store, NodeID: "self", Logger: discard(),
		Locate: func(context.Context, string) ([]*api.ImageHolder, error) { return holders, nil },
		Dial: func(nodeID, address string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(m.identity.ClientCredentials(nodeID)))
		},
	}
	name := probeImage + "@" + d.String()
	if _, err := peer.Acquire(t.Context(), name); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("from a node that doesn't answer: %v", err)
	}
	if _, err := peer.Acquire(t.Context(), "none:1"); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "No such image: none:1") {
		t.Errorf("an unknown image: %v", err)
	}
	holders = append(holders, &api.ImageHolder{NodeId: n.identity.NodeID(), PeerAddress: n.peer})
	got, err := peer.Acquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Release()
	if got.Digest != d.String() || len(got.Layers) == 0 || got.Config.Env[0] != "FROM=image" {
		t.Errorf("got %+v", got)
	}
	if tagged, err := store.Resolve(t.Context(), probeImage); tagged != d {
		t.Errorf("the tag leads to %s, %v", tagged, err)
	}
}

func TestAgent_RefusesBadRequests(t *testing.T) {
	m := newManager(t)
	n := newNode(t, m)
	d, err := n.images.Resolve(t.Context(), probeImage)
	if err != nil {
		t.Fatal(err)
	}
	c := m.agentClient(t, n)
	for name, test := range map[string]struct {
		r    *api.GetBlobRequest
		want codes.Code
	}{
		"no digest":      {&api.GetBlobRequest{Digest: "../../etc/passwd"}, codes.InvalidArgument},
		"unknown":        {&api.GetBlobRequest{Digest: "sha256:" + strings.Repeat("0", 64)}, codes.NotFound},
		"offset too far": {&api.GetBlobRequest{Digest: d.String(), Offset: 1 << 40}, codes.InvalidArgument},
		"offset below 0": {&api.GetBlobRequest{Digest: d.String(), Offset: -1}, codes.InvalidArgument},
	} {
		stream, err := c.GetBlob(t.Context(), test.r)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	stream, err := c.ReadTaskLogs(t.Context(), &api.ReadTaskLogsRequest{TaskIds: []string{"../x"}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a path as a task: %v", err)
	}
}
