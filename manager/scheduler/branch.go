package scheduler

import (
	"cmp"
	"container/heap"

	"github.com/skep-io/skep/manager/constraint"
)

// candidate is a node that passes all filters, and its rank.
type candidate struct {
	node *node
	rank rank
}

func compareCandidates(a, b *candidate) int {
	for i := range a.rank {
		if a.rank[i] != b.rank[i] {
			return cmp.Compare(a.rank[i], b.rank[i])
		}
	}
	return cmp.Compare(a.node.place, b.node.place)
}

// candidates is a heap: the best one is first.
type candidates []candidate

func (h candidates) Len() int           { return len(h) }
func (h candidates) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h candidates) Less(i, j int) bool { return compareCandidates(&h[i], &h[j]) < 0 }

// Push is for package heap.
func (h *candidates) Push(x any) { *h = append(*h, x.(candidate)) }

// Pop is for package heap.
func (h *candidates) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// branch is the candidates that have the same values of the labels which the service is spread over, so far. It has either nodes, or
// branches for the values of the next label.
type branch struct {
	nodes    candidates
	branches branches
	// tasks are the live ones of the service on nodes with these values, candidates or not. Of the root nobody asks.
	tasks int
	// byValue finds branches. A value that no node has stands for the nodes without the label.
	byValue map[labelValue]*branch
}

type labelValue struct {
	value string
	found bool
}

// branches is a heap: the one that gets the next task is first. None in it is empty.
type branches []*branch

func (h branches) Len() int      { return len(h) }
func (h branches) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Less prefers fewer tasks, but not where all nodes are faulty.
func (h branches) Less(i, j int) bool {
	a, b := h[i].best(), h[j].best()
	if a.rank[0] != b.rank[0] {
		return a.rank[0] < b.rank[0]
	}
	if h[i].tasks != h[j].tasks {
		return h[i].tasks < h[j].tasks
	}
	return compareCandidates(a, b) < 0
}

// Push is for package heap.
func (h *branches) Push(x any) { *h = append(*h, x.(*branch)) }

// Pop is for package heap.
func (h *branches) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// best returns the candidate that gets the next task, or nil.
func (b *branch) best() *candidate {
	for len(b.branches) > 0 {
		b = b.branches[0]
	}
	if len(b.nodes) == 0 {
		return nil
	}
	return &b.nodes[0]
}

// find returns the branch of a node, making it when create says so; otherwise it may be nil.
func (b *branch) find(label constraint.Label, n *node, create bool) *branch {
	var key labelValue
	key.value, key.found = label.Of(n.api)
	next := b.byValue[key]
	if next == nil && create {
		next = &branch{}
		if b.byValue == nil {
			b.byValue = map[labelValue]*branch{}
		}
		b.byValue[key] = next
		b.branches = append(b.branches, next)
	}
	return next
}

// order makes heaps of all that was appended.
func (b *branch) order() {
	for _, next := range b.branches {
		next.order()
	}
	heap.Init(&b.branches)
	heap.Init(&b.nodes)
}

// raise notes that the best candidate got a task; keep gives it its new rank, or reports that it has no room for another one.
func (b *branch) raise(keep func(*candidate) bool) {
	b.tasks++
	if len(b.branches) > 0 {
		next := b.branches[0]
		next.raise(keep)
		if next.best() == nil {
			heap.Pop(&b.branches)
			return
		}
		heap.Fix(&b.branches, 0)
		return
	}
	if !keep(&b.nodes[0]) {
		heap.Pop(&b.nodes)
		return
	}
	heap.Fix(&b.nodes, 0)
}
