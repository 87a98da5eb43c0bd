package caserver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// workplace is a store with two nodes, and the server that gives their tasks certificates.
type workplace struct {
	store    *store.Store
	founding Founding
	server   *Server
	// mine and other are nodes.
	mine, other string
}

func newWorkplace(t *testing.T) *workplace {
	t.Helper()
	s, f := found(t)
	server, err := New(Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w := &workplace{store: s, founding: f, server: server, mine: f.Node.GetId(), other: catest.NewID()}
	storetest.Create(t, s, &api.Node{Id: w.other, Role: api.Role_ROLE_WORKER})
	return w
}

// task adds a task of the service web that runs on a node.
func (w *workplace) task(t *testing.T, node string, change func(*api.Task)) *api.Task {
	t.Helper()
	task := &api.Task{
		Id: catest.NewID(), ServiceName: "web", ServiceId: catest.NewID(), Slot: 7, NodeId: node,
		DesiredState: api.TaskState_TASK_STATE_RUNNING, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_READY},
	}
	if change != nil {
		change(task)
	}
	storetest.Create(t, w.store, task)
	return task
}

// ask asks for the certificates of tasks as a node.
func (w *workplace) ask(t *testing.T, node string, taskIDs ...string) ([]*api.WorkloadAnswer, error) {
	t.Helper()
	_, csr := catest.KeyAndCSR(t)
	r := &api.IssueWorkloadCertificatesRequest{}
	for _, id := range taskIDs {
		r.Requests = append(r.Requests, &api.WorkloadRequest{TaskId: id, Csr: csr})
	}
	ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_WORKER, NodeID: node})
	resp, err := w.server.IssueWorkloadCertificates(ctx, r)
	return resp.GetAnswers(), err
}

func TestWorkload_TheStoreSaysWhomACertificateNames(t *testing.T) {
	w := newWorkplace(t)
	first, second := w.task(t, w.mine, nil), w.task(t, w.mine, func(task *api.Task) { task.ServiceName, task.Slot = "db_1", 1 })
	answers, err := w.ask(t, w.mine, second.GetId(), first.GetId())
	if err != nil || len(answers) != 2 {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	root, err := ca.ParseRoots(w.founding.Cluster.GetRootCa().GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root[0])
	for i, want := range []string{"db_1/task/1", "web/task/7"} {
		chain, err := ca.ParseBundle(answers[i].GetCertificate())
		if err != nil {
			t.Fatalf("%v: %s", err, answers[i].GetRefusal())
		}
		got, err := ca.WorkloadOf(chain[0])
		if err != nil || got.SPIFFEID() != "spiffe://"+w.founding.Cluster.GetId()+"/service/"+want {
			t.Errorf("certificate of %v, %v; want %s", got.SPIFFEID(), err, want)
		}
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots}); err != nil {
			t.Error(err)
		}
	}
}

func TestWorkload_OnlyForTheNodeThatIsToRunTheTaskNow(t *testing.T) {
	w := newWorkplace(t)
	good := w.task(t, w.mine, nil).GetId()
	cases := map[string]struct {
		taskID, want string
	}{
		"no such task":        {catest.NewID(), "is not placed on this node"},
		"no id":               {"", "is not placed on this node"},
		"a long id":           {strings.Repeat("x", 5000), strings.Repeat("x", maxLoggedID) + " is not placed on this node"},
		"another node's task": {w.task(t, w.other, nil).GetId(), "is not placed on this node"},
		"no node's task":      {w.task(t, "", nil).GetId(), "is not placed on this node"},
		"one that waits": {w.task(t, w.mine, func(task *api.Task) {
			task.DesiredState = api.TaskState_TASK_STATE_READY
		}).GetId(), "is not to run yet"},
		"one that is to stop": {w.task(t, w.mine, func(task *api.Task) {
			task.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
		}).GetId(), "is to stop"},
		"one that has ended": {w.task(t, w.mine, func(task *api.Task) {
			task.Status.State = api.TaskState_TASK_STATE_FAILED
		}).GetId(), "has ended"},
		"a service with a name of its own": {w.task(t, w.mine, func(task *api.Task) {
			task.ServiceName = "web/task/1"
		}).GetId(), "service"},
	}
	for name, c := range cases {
		answers, err := w.ask(t, w.mine, c.taskID, good)
		if err != nil || len(answers) != 2 {
			t.Errorf("%s: %d answers, %v", name, len(answers), err)
			continue
		}
		if len(answers[0].GetCertificate()) > 0 || !strings.Contains(answers[0].GetRefusal(), c.want) {
			t.Errorf("%s: refused with %q, want %q", name, answers[0].GetRefusal(), c.want)
		}
		if len(answers[1].GetCertificate()) == 0 {
			t.Errorf("%s: keeps another task from its certificate: %s", name, answers[1].GetRefusal())
		}
	}
	if answers, err := w.ask(t, w.other, good); err != nil || len(answers[0].GetCertificate()) > 0 {
		t.Errorf("another node got the certificate: %v", err)
	}
}

func TestWorkload_NoMoreAfterTheTaskMoved(t *testing.T) {
	w := newWorkplace(t)
	task := w.task(t, w.mine, nil)
	if answers, err := w.ask(t, w.mine, task.GetId()); err != nil || len(answers[0].GetCertificate()) == 0 {
		t.Fatalf("%v, %v", answers, err)
	}
	err := w.store.Update(t.Context(), "", func(tx store.Tx) error {
		current, err := store.Get[*api.Task](tx, task.GetId())
		if err != nil {
			return err
		}
		current = proto.CloneOf(current)
		current.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
		return tx.Update(current)
	})
	if err != nil {
		t.Fatal(err)
	}
	if answers, err := w.ask(t, w.mine, task.GetId()); err != nil || len(answers[0].GetCertificate()) > 0 {
		t.Errorf("%v, %v", answers, err)
	}
}

func TestWorkload_RefusesRequests(t *testing.T) {
	w := newWorkplace(t)
	task := w.task(t, w.mine, nil).GetId()
	if _, err := w.ask(t, "", task); fault.KindOf(err) != fault.PermissionDenied {
		t.Errorf("from no node: %v", err)
	}
	for _, n := range []int{0, maxWorkloads + 1} {
		if _, err := w.ask(t, w.mine, make([]string, n)...); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), fmt.Sprint(n)) {
			t.Errorf("%d at once: %v", n, err)
		}
	}
	ctx := authz.NewContext(t.Context(), authz.Caller{NodeID: w.mine})
	for what, csr := range map[string][]byte{"no": nil, "a malformed": []byte("x"), "a huge": make([]byte, ca.MaxCSRSize+1)} {
		r := &api.IssueWorkloadCertificatesRequest{Requests: []*api.WorkloadRequest{{TaskId: task, Csr: csr}}}
		resp, err := w.server.IssueWorkloadCertificates(ctx, r)
		if err != nil || len(resp.GetAnswers()[0].GetCertificate()) > 0 || resp.GetAnswers()[0].GetRefusal() == "" {
			t.Errorf("%s request: %v, %v", what, resp, err)
		}
	}
	behind, cancel := context.WithCancel(ctx)
	cancel() // the barrier of a store without peers fails only so
	r := &api.IssueWorkloadCertificatesRequest{Requests: []*api.WorkloadRequest{{TaskId: task}}}
	if _, err := w.server.IssueWorkloadCertificates(behind, r); !errors.Is(err, context.Canceled) {
		t.Errorf("answered without knowing whether it is current: %v", err)
	}
}

func TestWorkload_ANodeIsPacedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := newPacer()
		if err != nil {
			t.Fatal(err)
		}
		if !p.allow(time.Now(), "n1", workloadBurst) {
			t.Error("a whole burst is too much")
		}
		if p.allow(time.Now(), "n1", 1) {
			t.Error("more than a burst")
		}
		if !p.allow(time.Now(), "n2", maxWorkloads) {
			t.Error("a node pays for another one")
		}
		<-time.After(time.Second)
		if !p.allow(time.Now(), "n1", workloadRate) || p.allow(time.Now(), "n1", 1) {
			t.Errorf("after a second, not %d more", workloadRate)
		}
		for i := range 2 * maxPacedNodes {
			p.allow(time.Now(), fmt.Sprint(i), 1)
		}
		if p.nodes.Len() != maxPacedNodes {
			t.Errorf("remembers %d nodes", p.nodes.Len())
		}
	})
}
