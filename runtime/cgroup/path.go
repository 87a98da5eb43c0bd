package cgroup

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDepth bounds the path of a group.
const maxDepth = 32

// OpenAt is Open for a parent that may lie deeper, as container engines want it: path is below the top of each
// hierarchy, and what is missing of it is created.
func OpenAt(path string) (*Tree, error) {
	elements := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(elements) > maxDepth {
		return nil, fmt.Errorf("%w: %.256q is %d deep, at most %d are possible", ErrName, path, len(elements), maxDepth)
	}
	for _, e := range elements {
		if !ValidName(e) {
			return nil, fmt.Errorf("%w: %.256q", ErrName, path)
		}
	}
	var tree *Tree
	for i := range elements { // each on the way gets its controllers
		t, err := open(strings.Join(elements[:i+1], "/"))
		if err != nil {
			return nil, err
		}
		tree = t
	}
	return tree, nil
}

// Pids lists the group's processes; none if the group is gone.
func (g *Group) Pids() ([]int, error) { return g.pids() }

// Signal sends a signal to every process that is in the group now.
func (g *Group) Signal(s unix.Signal) error {
	pids, err := g.pids()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := g.signal(pid, s); err != nil {
			return err
		}
	}
	return nil
}
