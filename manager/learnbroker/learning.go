package learnbroker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/reach"
)

// learning is one call of LearnSeccomp. It belongs to its goroutine; nodes only send to events.
type learning struct {
	cfg     Config
	subject subject
	send    func(*api.LearnProgress) error
	events  chan event
	nodes   []*node // by id
	open    int     // nodes that have not ended
	// relevant are the nodes on which tasks of the service live or lived.
	relevant map[string]bool
}

func newLearning(cfg Config, s subject, send func(*api.LearnProgress) error) *learning {
	l := &learning{cfg: cfg, subject: s, send: send, events: make(chan event), relevant: map[string]bool{}}
	l.notice(s.tasks)
	return l
}

// notice takes in where tasks are.
func (l *learning) notice(tasks []*api.Task) {
	for _, t := range tasks {
		l.relevant[t.GetNodeId()] = true
	}
}

// run records on all nodes until the duration is over, once all have answered, or stop is closed. It returns the cause of the end of ctx,
// an error of send, or one when nothing can be recorded.
func (l *learning) run(ctx context.Context, duration time.Duration, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel() // P3
	end := make(chan struct{})
	l.begin(ctx, &running, end)
	for l.waiting() > 0 {
		if err := l.next(ctx); err != nil {
			return err
		}
	}
	if err := l.possible(); err != nil {
		return err
	}
	last := l.progress()
	if err := l.send(last); err != nil {
		return err
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	over := timer.C
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for l.open > 0 {
		select {
		case <-over:
			close(end)
			stop, over = nil, nil
		case <-stop:
			close(end)
			stop, over = nil, nil
		case <-tick.C:
			if now := l.progress(); !proto.Equal(now, last) {
				last = now
				if err := l.send(now); err != nil {
					return err
				}
			}
		case e := <-l.events:
			l.take(e)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// begin starts the recordings.
func (l *learning) begin(ctx context.Context, running *sync.WaitGroup, end <-chan struct{}) {
	for _, described := range l.subject.nodes {
		n := &node{
			id: described.GetId(), hostname: described.GetDescription().GetHostname(), tasks: l.subject.tasksOn(described.GetId()),
		}
		l.nodes = append(l.nodes, n)
		var address string
		if address, n.err = reach.Address(described); n.err != nil {
			continue
		}
		l.open++
		running.Go(func() { n.run(ctx, l.cfg, address, l.subject.service.GetId(), end, l.events) })
	}
}

// next waits for news.
func (l *learning) next(ctx context.Context) error {
	select {
	case e := <-l.events:
		l.take(e)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take takes in news of a node.
func (l *learning) take(e event) {
	if e.calls != nil {
		e.node.calls = e.calls
		return
	}
	e.node.err = e.err
	l.open--
}

// waiting counts the nodes that have neither answered nor ended.
func (l *learning) waiting() (n int) {
	for _, one := range l.nodes {
		if one.calls == nil && one.err == nil {
			n++
		}
	}
	return n
}

// possible returns an error if there is nowhere to record: on none of the nodes where tasks are, or on none at all.
func (l *learning) possible() error {
	var reasons []string
	for _, n := range l.nodes {
		if len(l.relevant) > 0 && !l.relevant[n.id] {
			continue
		}
		if n.err == nil {
			return nil
		}
		reasons = append(reasons, fmt.Sprintf("node %s: %v", n.name(), n.err))
	}
	const most = 3
	if more := len(reasons) - most; more > 0 {
		reasons = append(reasons[:most], fmt.Sprintf("and %d more", more))
	}
	return fault.New(fault.Precondition, "the system calls of service %s can't be recorded: %s", l.subject.name(), strings.Join(reasons, "; "))
}

func (n *node) name() string {
	if n.hostname != "" {
		return n.hostname
	}
	return n.id
}

const (
	// maxGaps bounds what is told of nodes and tasks that are missing.
	maxGaps = 64
	// maxNames bounds the names, and maxName the bytes of one: no machine has as many calls, nor one with so long a name.
	maxNames = 1200
	maxName  = 64
)

// progress merges what the nodes said.
func (l *learning) progress() *api.LearnProgress {
	out := &api.LearnProgress{}
	used, refused := map[string]bool{}, map[string]bool{}
	for _, n := range l.nodes {
		out.Tasks += n.calls.GetTasks()
		out.FromStart += n.calls.GetFromStart()
		add(used, n.calls.GetUsed())
		add(refused, n.calls.GetRefused())
		if n.err != nil && l.relevant[n.id] {
			out.Gaps = append(out.Gaps, &api.LearnGap{NodeId: n.id, NodeHostname: n.hostname, Reason: n.err.Error()})
		}
		for _, problem := range n.calls.GetProblems() {
			out.Gaps = append(out.Gaps, &api.LearnGap{NodeId: n.id, NodeHostname: n.hostname, Reason: clip(problem)})
		}
	}
	if len(out.Gaps) > maxGaps {
		out.Gaps = out.Gaps[:maxGaps]
	}
	out.Used, out.Refused = slices.Sorted(maps.Keys(used)), slices.Sorted(maps.Keys(refused))
	return out
}

// add takes in names, as far as they can be some.
func add(to map[string]bool, names []string) {
	for _, name := range names {
		if len(name) <= maxName && len(to) < maxNames {
			to[name] = true
		}
	}
}

// compat reports whether a node saw calls by its 32-bit ABI.
func (l *learning) compat() bool {
	return slices.ContainsFunc(l.nodes, func(n *node) bool { return n.calls.GetCompat() })
}
