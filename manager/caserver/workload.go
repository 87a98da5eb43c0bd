package caserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"
	"golang.org/x/time/rate"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

const (
	// maxWorkloads bounds one request; MaxCSRSize bounds each of its parts.
	maxWorkloads = 64
	// A node gets workloadBurst certificates at once, as after a root rotation, and then workloadRate a second: a node that asks
	// without end takes a small share of one CPU from a manager.
	workloadBurst = 2000
	workloadRate  = 100
	// maxPacedNodes bounds the memory for nodes that asked. The one that asked longest ago is forgotten first.
	maxPacedNodes = 16384
)

// IssueWorkloadCertificates implements api.CAServer. It writes nothing: any manager that is current can answer.
func (s *Server) IssueWorkloadCertificates(
	ctx context.Context, r *api.IssueWorkloadCertificatesRequest,
) (*api.IssueWorkloadCertificatesResponse, error) {
	node, n := authz.FromContext(ctx).NodeID, len(r.GetRequests())
	switch {
	case node == "":
		return nil, fault.New(fault.PermissionDenied, "only a node is given the certificates of its tasks")
	case n == 0 || n > maxWorkloads:
		return nil, fault.New(fault.Invalid, "certificates of %d tasks in one request: ask for 1 to %d", n, maxWorkloads)
	case !s.pacer.allow(time.Now(), node, n):
		return nil, fault.New(fault.Exhausted, "this node asked for too many certificates of tasks: it may have %d a second", workloadRate)
	}
	if err := s.cfg.Store.Barrier(ctx); err != nil { // I8
		return nil, kinded(err)
	}
	cluster, err := s.registry.Cluster(ctx)
	if err != nil {
		return nil, kinded(err)
	}
	out := &api.IssueWorkloadCertificatesResponse{}
	for _, request := range r.GetRequests() {
		chain, err := s.issueWorkload(cluster, node, request)
		switch {
		case isRefusal(err):
			s.cfg.Logger.Warn("certificate of a task refused", "node", node, "task", clip(request.GetTaskId()), "error", err)
			out.Answers = append(out.Answers, &api.WorkloadAnswer{Refusal: err.Error()})
		case err != nil:
			return nil, kinded(err)
		default:
			out.Answers = append(out.Answers, &api.WorkloadAnswer{Certificate: chain})
		}
	}
	return out, nil
}

// errNotToRun is returned for a task that this node is not to run, or not now.
var errNotToRun = errors.New("no certificate")

// isRefusal reports whether an error concerns one task alone, and would come again.
func isRefusal(err error) bool {
	return errors.Is(err, errNotToRun) || errors.Is(err, ca.ErrBadCSR) || errors.Is(err, ca.ErrBadName)
}

// maxLoggedID is how much is logged of an id that a node sent.
const maxLoggedID = 64

func clip(id string) string { return fmt.Sprintf("%.*s", maxLoggedID, id) }

// issueWorkload gives a node the certificate of one of its tasks. What the certificate says comes from the store alone.
func (s *Server) issueWorkload(cluster ca.Cluster, nodeID string, r *api.WorkloadRequest) ([]byte, error) {
	var task *api.Task
	err := s.cfg.Store.View(func(tx store.ReadTx) (err error) {
		task, err = store.Get[*api.Task](tx, r.GetTaskId())
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && task.GetNodeId() != nodeID:
		// One answer for both: what runs elsewhere is no node's business.
		return nil, fmt.Errorf("%w: task %s is not placed on this node", errNotToRun, clip(r.GetTaskId()))
	case err != nil:
		return nil, err
	case taskstate.Ended(task):
		return nil, fmt.Errorf("%w: task %s has ended", errNotToRun, task.GetId())
	case !taskstate.Live(task):
		return nil, fmt.Errorf("%w: task %s is to stop", errNotToRun, task.GetId())
	case task.GetDesiredState() != api.TaskState_TASK_STATE_RUNNING:
		return nil, fmt.Errorf("%w: task %s is not to run yet", errNotToRun, task.GetId())
	}
	w := ca.Workload{ClusterID: cluster.ID, Service: task.GetServiceName(), Slot: task.GetSlot()}
	return cluster.Issuer().IssueWorkload(time.Now(), r.GetCsr(), w)
}

// pacer bounds how many certificates of tasks each node gets.
type pacer struct {
	mu    sync.Mutex
	nodes *simplelru.LRU // guarded by mu: *rate.Limiter by node
}

func newPacer() (*pacer, error) {
	nodes, err := simplelru.NewLRU(maxPacedNodes, nil)
	return &pacer{nodes: nodes}, err
}

// allow counts n certificates for a node, or returns false if that is too many.
func (p *pacer) allow(now time.Time, node string, n int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.nodes.Get(node)
	l, _ := found.(*rate.Limiter)
	if !ok {
		l = rate.NewLimiter(workloadRate, workloadBurst)
		p.nodes.Add(node, l)
	}
	return l.AllowN(now, n)
}
