package bundle

import (
	"fmt"

	"github.com/skep-io/skep/runtime/cgroup"
)

// Event is what the command events prints, in the form that runc has for it and tools read.
type Event struct {
	Type string `json:"type"` // "stats"
	ID   string `json:"id"`
	Data Usage  `json:"data"`
}

// Usage is what a container uses. Times are in nanoseconds, all else in bytes or numbers.
type Usage struct {
	CPU    CPU    `json:"cpu"`
	Memory Memory `json:"memory"`
	Pids   Pids   `json:"pids"`
}

// CPU is the use of processors.
type CPU struct {
	Usage struct {
		Total  uint64 `json:"total"`
		Kernel uint64 `json:"kernel"`
		User   uint64 `json:"user"`
	} `json:"usage"`
	Throttling struct {
		Periods          uint64 `json:"periods"`
		ThrottledPeriods uint64 `json:"throttledPeriods"`
		ThrottledTime    uint64 `json:"throttledTime"`
	} `json:"throttling"`
}

// Memory is the use of memory.
type Memory struct {
	Cache uint64 `json:"cache"`
	Usage struct {
		Limit uint64 `json:"limit"` // 0 for none
		Usage uint64 `json:"usage"`
	} `json:"usage"`
}

// Pids are processes and threads.
type Pids struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"` // 0 for none
}

// Stats tells what a container uses now.
func (r *Runtime) Stats(id string) (Event, error) {
	c, err := r.find(id)
	if err != nil {
		return Event{}, err
	}
	if !c.alive() {
		return Event{}, fmt.Errorf("stats of container %s: %w", id, ErrNotRunning)
	}
	group, err := c.group()
	if err != nil {
		return Event{}, fmt.Errorf("stats of container %s: %w", id, err)
	}
	s, err := group.Stats()
	if err != nil {
		return Event{}, fmt.Errorf("stats of container %s: %w", id, err)
	}
	return Event{Type: "stats", ID: id, Data: usage(s)}, nil
}

func usage(s cgroup.Stats) Usage {
	var out Usage
	out.CPU.Usage.Total, out.CPU.Usage.Kernel = uint64(s.CPU.Usage), uint64(s.CPU.System)
	out.CPU.Usage.User = uint64(s.CPU.User)
	out.CPU.Throttling.Periods, out.CPU.Throttling.ThrottledPeriods = s.CPU.Periods, s.CPU.Throttled
	out.CPU.Throttling.ThrottledTime = uint64(s.CPU.ThrottledTime)
	out.Memory.Cache, out.Memory.Usage.Limit, out.Memory.Usage.Usage = s.Memory.Cache, s.Memory.Limit, s.Memory.Usage
	out.Pids = Pids{Current: s.Pids, Limit: s.PidsLimit}
	return out
}
