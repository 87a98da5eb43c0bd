package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// opKind is what an operation does.
type opKind int

const (
	opPut    opKind = iota // sets the value of a key
	opGet                  // reads it
	opCreate               // makes a secret
	opDelete               // removes one
)

// op is what a client asks for. It ends by an answer, or when the client gives up.
type op struct {
	client, key int
	kind        opKind
	value       uint64
	id          string // of the request, and of the secret that opCreate makes
	target      string // the secret that opDelete removes
	call        time.Duration
	audited     bool // with an entry in the audit log, which all managers know
	sure        bool // the manager that was asked has confirmed that it leads
	ended       bool
}

const (
	giveUp  = 4 * time.Second
	tryNext = 400 * time.Millisecond // a client that hears nothing for so long asks another manager
	// never is when an operation returned that nobody saw return.
	never = math.MaxInt64
)

// client issues one operation after the other.
func (w *world) client(c int) {
	if w.done {
		return
	}
	w.nextID++
	o := &op{
		client: c, kind: opKind(w.rng.IntN(3)), key: w.rng.IntN(keys), value: uint64(w.nextID),
		id: fmt.Sprint("request", w.nextID), call: w.now, audited: w.protocol > 0,
	}
	// Half of the secrets that are there go again. From the moment on when that is asked for, they may be there or not.
	if o.kind == opCreate && len(w.alive) > 20 {
		o.kind = opDelete
		i := w.rng.IntN(len(w.alive))
		o.target = w.alive[i]
		w.alive = append(w.alive[:i], w.alive[i+1:]...)
		delete(w.created, o.target)
	}
	w.after(giveUp, func() { w.end(o, false, 0) })
	w.attempt(o, w.anyNode())
}

func (w *world) anyNode() *node { return w.nodes[w.rng.IntN(managers)] }

// end records an operation. Without an answer it may have happened at any time, or never.
func (w *world) end(o *op, answered bool, value uint64) {
	if o.ended {
		return
	}
	o.ended = true
	w.note(uint64(o.client), o.value, value)
	if answered && o.kind != opGet {
		w.lastWrite = w.now
	}
	record := porcupine.Operation{ClientId: o.client, Input: o, Call: int64(o.call), Output: value, Return: int64(w.now)}
	switch {
	case o.kind == opCreate && answered:
		w.created[o.id] = true
		w.alive = append(w.alive, o.id)
	case o.kind == opDelete && answered:
		w.deleted[o.target] = true
	case o.kind == opGet && answered, o.kind == opPut && answered:
		w.history = append(w.history, record)
	case o.kind == opPut:
		record.Return = never
		w.history = append(w.history, record)
	}
	w.after(w.between(time.Millisecond, 200*time.Millisecond), func() { w.client(o.client) })
}

// attempt asks a manager. The same request goes to another one when the answer does not come.
func (w *world) attempt(o *op, n *node) {
	if o.ended {
		return
	}
	retry := func() { w.attempt(o, w.anyNode()) }
	if n.p != nil && w.now < n.pausedTo && w.chance(0.5) { // the manager gets to it when it goes on
		n.when(n.life, func() { w.attempt(o, n) })
		w.after(tryNext, retry)
		return
	}
	if n.p == nil || w.now < n.pausedTo {
		w.after(w.between(10*time.Millisecond, 50*time.Millisecond), retry)
		return
	}
	if o.kind == opGet {
		w.read(o, n, retry)
		return
	}
	w.write(o, n, retry)
}

// value is what a manager's state says of a key.
func (w *world) value(n *node, key int) uint64 {
	var service *api.Service
	err := n.p.Store().View(func(tx store.ReadTx) (err error) {
		service, err = store.Get[*api.Service](tx, keyName(key))
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.violated("read: %v", err)
	}
	return service.GetSpecVersion()
}

func (w *world) read(o *op, n *node, retry func()) {
	lead, _ := n.p.Store().Leadership()
	if w.bug == staleRead || w.bug == leaseRead && lead.Self {
		w.end(o, true, w.value(n, o.key))
		return
	}
	pending, err := n.p.Barrier()
	n.calls = append(n.calls, &call{pending: pending, done: func(err error) {
		if err == nil && !o.ended {
			w.end(o, true, w.value(n, o.key))
		}
	}})
	n.do(err)
	w.after(tryNext, retry)
}

func keyName(key int) string { return fmt.Sprint("key", key) }

// change is what Update would be called with.
func (o *op) change(tx store.Tx) error {
	if o.audited {
		if err := tx.Audit(chain.Encode(&api.AuditEvent{RequestId: o.id})); err != nil {
			return err
		}
	}
	switch o.kind {
	case opCreate:
		return tx.Create(&api.Secret{Id: o.id, Spec: &api.SecretSpec{
			Annotations: &api.Annotations{Name: o.id}, Data: canary,
		}})
	case opDelete:
		return tx.Delete(object.KindSecret, o.target)
	}
	service, err := store.Get[*api.Service](tx, keyName(o.key))
	if errors.Is(err, store.ErrNotFound) {
		return tx.Create(&api.Service{Id: keyName(o.key), SpecVersion: o.value})
	}
	if err != nil {
		return err
	}
	service = proto.CloneOf(service)
	service.SpecVersion = o.value
	return tx.Update(service)
}

func (w *world) write(o *op, n *node, retry func()) {
	id := o.id
	if w.bug == freshID {
		id = fmt.Sprint(o.id, "at", int64(w.now))
	}
	pending, err := n.p.Propose(time.Unix(1e9, 0).Add(w.now+n.clock), id, o.change)
	switch {
	case errors.Is(err, store.ErrDuplicate):
		w.end(o, true, 0)
		return
	case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrBusy):
		w.after(w.between(10*time.Millisecond, 50*time.Millisecond), retry)
		return
	case w.bug == freshID && (errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound)):
		w.end(o, true, 0) // as a client says that mends its retries
		return
	case err != nil && o.sure:
		w.violated("I1: write %s: %v", o.id, err)
	case err != nil: // perhaps this manager was deposed and does not know it
		w.confirm(o, n)
		w.after(tryNext, retry)
		return
	}
	n.calls = append(n.calls, &call{pending: pending, write: true, done: func(err error) {
		switch {
		case err == nil, errors.Is(err, store.ErrDuplicate):
			w.end(o, true, 0)
		case errors.Is(err, store.ErrConflict):
			w.attempt(o, n)
		}
	}})
	if w.bug == ackEarly {
		w.end(o, true, 0)
	}
	n.settle()
	w.after(tryNext, retry)
}

// confirm asks a manager again that said that an object is there, or is not, although it must not be so.
func (w *world) confirm(o *op, n *node) {
	pending, err := n.p.Barrier()
	n.calls = append(n.calls, &call{pending: pending, done: func(err error) {
		if err == nil {
			o.sure = true
			w.attempt(o, n)
			o.sure = false
		}
	}})
	n.do(err)
}
