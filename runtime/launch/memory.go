package launch

import (
	"fmt"
	"sync"
	"unsafe"
)

// table is the program of one child, and the memory that it is in: its own until the fork, either of the Go heap, or a region that
// the forker has a copy of.
type table struct {
	steps  []step
	code   []uint64 // the steps as the child reads them; once sealed
	names  []string // of each step, for errors
	free   []reg
	err    error // the first mistake in building
	region *region

	blocks []*block // memory that arguments point to; only the last has room
	used   uintptr  // of the last block, or of the region
	large  [][]uint64
}

// block is memory for strings and structures. Few pages, always the same, are worth much here: a page is copied when it is written for
// the first time after a fork.
type block [2048]uint64

const blockSize = unsafe.Sizeof(block{})

// The pools are for what would be most of a launch's garbage.
var (
	blocks      = sync.Pool{New: func() any { return new(block) }}
	stepBuffers = sync.Pool{New: func() any { return new(make([]step, 0, usualSteps)) }}
)

// usualSteps is about what the default configuration takes.
const usualSteps = 640

// newTable begins a table, in a region if there is one.
func newTable(r *region) *table {
	t := &table{names: make([]string, 0, usualSteps), region: r}
	t.steps, t.used = (*stepBuffers.Get().(*[]step))[:0], blockSize
	if r != nil {
		t.used = codeSize
	}
	for r := reg(registers - 1); r > 0; r-- {
		t.free = append(t.free, r)
	}
	return t
}

// release gives up the steps and what they point to, which the child has a copy of. It may be called again.
func (t *table) release() {
	steps, used, region := t.steps, t.blocks, t.region
	t.steps, t.code, t.blocks, t.large, t.region = nil, nil, nil, nil, nil
	if steps != nil {
		stepBuffers.Put(&steps)
	}
	if region != nil {
		region.giveBack()
	}
	for _, b := range used {
		blocks.Put(b)
	}
}

// room gives n bytes, all zero, aligned for any structure.
func (t *table) room(n uintptr) unsafe.Pointer {
	n = (n + 7) &^ 7
	if t.region != nil {
		if n <= regionSize-t.used {
			at := unsafe.Add(t.region.base, t.used)
			t.used += n
			clear(unsafe.Slice((*byte)(at), n))
			return at
		}
		t.fail(fmt.Errorf("arguments, environment and mounts of more than %d bytes", regionSize-codeSize))
	}
	if t.region != nil || n > blockSize {
		large := make([]uint64, n/8)
		t.large = append(t.large, large)
		return unsafe.Pointer(&large[0])
	}
	if t.used+n > blockSize {
		b := blocks.Get().(*block)
		clear(b[:])
		t.blocks, t.used = append(t.blocks, b), 0
	}
	at := unsafe.Add(unsafe.Pointer(t.blocks[len(t.blocks)-1]), t.used)
	t.used += n
	return at
}

// fail keeps the first mistake.
func (t *table) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// place copies v to where the child will have it, and gives its address there. If v has pointers, they point to what was placed.
func place[T any](t *table, v T) (*T, arg) {
	at := (*T)(t.room(unsafe.Sizeof(v)))
	*at = v
	return at, arg{value: uintptr(unsafe.Pointer(at))}
}

// placeAll does the same with a list that is not empty, and has no pointers.
func placeAll[T any](t *table, list []T) arg {
	at := t.room(unsafe.Sizeof(list[0]) * uintptr(len(list)))
	copy(unsafe.Slice((*T)(at), len(list)), list)
	return arg{value: uintptr(at)}
}
