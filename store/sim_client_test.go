package store

import (
	"errors"
	"fmt"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

const (
	opPut = iota
	opGet
	opCreate
	opDelete
)

// simOp is what a client asks for. It ends by an answer, or when the client gives up.
type simOp struct {
	client, kind, key int
	value             uint64
	id                string // of the request, and of the task that opCreate makes
	target            string // the task that opDelete removes
	call              int64
	ended             bool
}

const (
	giveUp  = 4 * sec
	tryNext = 400 * ms // a client that hears nothing for so long asks another manager
)

// client issues one operation after the other.
func (w *world) client(c int) {
	if w.calm {
		return
	}
	w.nextID++
	o := &simOp{
		client: c, kind: w.rng.IntN(3), key: w.rng.IntN(simKeys), value: uint64(w.nextID),
		id: fmt.Sprint("request", w.nextID), call: w.now,
	}
	// Half of the tasks that are there go again. From the moment on when that is asked for, they may be there or not.
	if o.kind == opCreate && len(w.alive) > 20 {
		o.kind = opDelete
		i := w.rng.IntN(len(w.alive))
		o.target = w.alive[i]
		w.alive = append(w.alive[:i], w.alive[i+1:]...)
		delete(w.created, o.target)
	}
	w.after(giveUp, func() { w.end(o, false, 0) })
	w.attempt(o, w.nodes[w.rng.IntN(simNodes)])
}

// end records an operation. Without an answer it may have happened at any time, or never.
func (w *world) end(o *simOp, answered bool, value uint64) {
	if o.ended {
		return
	}
	o.ended = true
	fmt.Fprintf(w.trace, "end %d %s %v %d ", w.now, o.id, answered, value)
	switch {
	case o.kind == opCreate:
		if answered {
			w.created[o.id] = true
			w.alive = append(w.alive, o.id)
		}
	case o.kind == opDelete:
		if answered {
			w.deleted[o.target] = true
		}
	case answered:
		w.history = append(w.history, porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Output: value, Return: w.now})
	case o.kind == opPut:
		w.history = append(w.history, porcupine.Operation{ClientId: o.client, Input: o, Call: o.call, Output: value, Return: never})
	}
	w.after(w.between(ms, 100*ms), func() { w.client(o.client) })
}

// attempt asks a manager. The same request goes to another one when the answer does not come.
func (w *world) attempt(o *simOp, n *simNode) {
	if o.ended {
		return
	}
	retry := func() { w.attempt(o, w.nodes[w.rng.IntN(simNodes)]) }
	if n.c == nil || w.now < n.pausedTo {
		w.after(w.between(10*ms, 50*ms), retry)
		return
	}
	if o.kind == opGet {
		w.read(o, n, retry)
		return
	}
	w.write(o, n, retry)
}

func (w *world) read(o *simOp, n *simNode, retry func()) {
	look := func() {
		service, err := Get[*api.Service](n.c.machine.view().read(), fmt.Sprint("key", o.key))
		if err != nil && !errors.Is(err, ErrNotFound) {
			w.violated("read: %v", err)
		}
		w.end(o, true, service.GetSpecVersion())
	}
	if w.bug == "staleread" {
		look()
		return
	}
	call := &simCall{barrier: make(chan error, 1), done: func(answer outcome) {
		if answer.err == nil && !o.ended {
			look()
		}
	}}
	n.open = append(n.open, call)
	n.do(func() error { return n.c.read(call.barrier) })
	w.after(tryNext, retry)
}

// closure is what Update would be called with.
func (o *simOp) closure(tx Tx) error {
	switch o.kind {
	case opCreate:
		return tx.Create(&api.Task{Id: o.id, ServiceId: "s"})
	case opDelete:
		return tx.Delete(object.KindTask, o.target)
	}
	id := fmt.Sprint("key", o.key)
	service, err := Get[*api.Service](tx, id)
	if errors.Is(err, ErrNotFound) {
		return tx.Create(&api.Service{Id: id, SpecVersion: o.value})
	}
	if err != nil {
		return err
	}
	service = proto.CloneOf(service)
	service.SpecVersion = o.value
	return tx.Update(service)
}

func (w *world) write(o *simOp, n *simNode, retry func()) {
	transaction, err := n.s.prepare(o.id, o.closure)
	switch {
	case errors.Is(err, ErrDuplicate):
		w.end(o, true, 0)
		return
	case errors.Is(err, ErrNotLeader):
		w.after(w.between(10*ms, 50*ms), retry)
		return
	case err != nil:
		w.violated("write: %v", err)
	}
	p := &proposal{requestID: o.id, transaction: transaction, done: make(chan outcome, 1)}
	n.open = append(n.open, &simCall{proposal: p, done: func(answer outcome) {
		switch {
		case answer.err == nil && (answer.result.err == nil || errors.Is(answer.result.err, ErrDuplicate)):
			w.end(o, true, 0)
		case answer.err == nil && errors.Is(answer.result.err, errRefused):
			w.attempt(o, n)
		}
	}})
	if w.bug == "ackearly" {
		w.end(o, true, 0)
	}
	n.waiting = append(n.waiting, p)
	n.settle()
	w.after(tryNext, retry)
}
