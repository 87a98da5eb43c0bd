package store

import (
	"slices"
	"strings"
	"sync"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// ownPrefix marks request ids that the store generated; callers may not use it.
const ownPrefix = "~"

// requests remembers the last applied transactions, so that each is applied once, however often it is proposed. It is part
// of the replicated state. Reads are safe from any goroutine.
type requests struct {
	mu    sync.Mutex
	named window // ids of callers
	own   window // ids that the store generated: kept apart so that many of them cannot push the others out
}

// window is a bounded queue with an index. Guarded by the mutex of requests.
type window struct {
	limit int
	queue []*DuplicateError // oldest first, from head on
	head  int
	byID  map[string]*DuplicateError
}

func newRequests() *requests {
	return &requests{
		named: window{limit: namedWindow, byID: map[string]*DuplicateError{}},
		own:   window{limit: ownWindow, byID: map[string]*DuplicateError{}},
	}
}

func (r *requests) window(id string) *window {
	if strings.HasPrefix(id, ownPrefix) {
		return &r.own
	}
	return &r.named
}

// find returns what became of the request, or nil. What it became may not be in the view yet.
func (r *requests) find(id string) *DuplicateError {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.window(id).byID[id]
}

func (r *requests) add(applied *DuplicateError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.window(applied.RequestID).add(applied)
}

func (w *window) add(applied *DuplicateError) {
	w.queue = append(w.queue, applied)
	w.byID[applied.RequestID] = applied
	for len(w.queue)-w.head > w.limit {
		delete(w.byID, w.queue[w.head].RequestID)
		w.queue[w.head] = nil
		w.head++
	}
	if w.head > w.limit {
		w.queue = append([]*DuplicateError(nil), w.queue[w.head:]...)
		w.head = 0
	}
}

// list returns all that is remembered, oldest first.
func (r *requests) list() (named, own []*DuplicateError) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.named.list(), r.own.list()
}

func (w *window) list() []*DuplicateError { return slices.Clone(w.queue[w.head:]) }

func saveRequests(list []*DuplicateError) []*api.AppliedRequest {
	saved := make([]*api.AppliedRequest, 0, len(list))
	for _, applied := range list {
		request := &api.AppliedRequest{RequestId: applied.RequestID, Index: applied.Index}
		for _, ref := range applied.Created {
			request.Created = append(request.Created, &api.ObjectRef{Kind: uint32(ref.Kind), Id: ref.ID})
		}
		saved = append(saved, request)
	}
	return saved
}

func (r *requests) load(named, own []*api.AppliedRequest) {
	fresh := newRequests()
	for _, saved := range append(append([]*api.AppliedRequest(nil), named...), own...) {
		applied := &DuplicateError{RequestID: saved.GetRequestId(), Index: saved.GetIndex()}
		for _, ref := range saved.GetCreated() {
			applied.Created = append(applied.Created, Ref{object.Kind(ref.GetKind()), ref.GetId()})
		}
		fresh.add(applied)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.named, r.own = fresh.named, fresh.own
}
