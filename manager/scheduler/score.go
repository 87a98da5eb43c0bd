package scheduler

import (
	"time"

	"github.com/skep-io/skep/api"
)

// scorer ranks the nodes that a group's tasks can run on. Each is a small type; scorersFor has their order.
type scorer interface {
	// score is lower for a node that is better.
	score(n *node) int64
	// name says what the score counts.
	name() string
}

// ranks is how many scorers a strategy has.
const ranks = 3

// rank has a node's scores by all scorers: an earlier one decides first, and in the end the id.
type rank [ranks]int64

// scorersFor returns the scorers of a group.
func (c *Core) scorersFor(now time.Time, g *group) [ranks]scorer {
	s := c.services[g.key.service]
	if s == nil {
		s = &service{}
	}
	avoid := faulty{s, now, g.key.specVersion}
	if g.strategy == api.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK {
		return [ranks]scorer{avoid, emptiest{&g.need}, idle{}}
	}
	return [ranks]scorer{avoid, sameService{s}, busiest{}}
}

// faulty puts nodes last on which the service's version failed again and again.
type faulty struct {
	s       *service
	now     time.Time
	version uint64
}

func (f faulty) score(n *node) int64 {
	if len(f.s.failures) > 0 && f.s.faulty(f.now, n, f.version) {
		return 1
	}
	return 0
}

func (faulty) name() string { return "failed here again and again" }

// sameService puts nodes first that have few live tasks of the service.
type sameService struct{ s *service }

func (f sameService) score(n *node) int64 {
	if len(f.s.live) == 0 {
		return 0
	}
	return int64(f.s.live[n])
}

func (sameService) name() string { return "tasks of the service" }

// busiest puts nodes last that have many live tasks.
type busiest struct{}

func (busiest) score(n *node) int64 { return int64(n.live) }

func (busiest) name() string { return "tasks" }

// idle puts nodes last that have few live tasks.
type idle struct{}

func (idle) score(n *node) int64 { return -int64(n.live) }

func (idle) name() string { return "tasks, of which more are better" }

// emptiest puts nodes last of which the least would be reserved with the task: of CPUs or memory, whichever is more.
type emptiest struct{ need *need }

func (emptiest) name() string { return "millionths of the node unreserved" }

// wholeNode is the score of a node of which nothing is reserved.
const wholeNode = 1_000_000

func (f emptiest) score(n *node) int64 {
	share := func(taken, more, total int64) float64 {
		if total <= 0 {
			return 0
		}
		return (float64(taken) + float64(more)) / float64(total)
	}
	full := max(share(n.takenCPUs, f.need.cpus, n.totalCPUs), share(n.takenMemory, f.need.memory, n.totalMemory))
	return wholeNode - int64(full*wholeNode)
}
