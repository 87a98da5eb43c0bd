package day

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
)

// step is something that people or fate do.
type step struct {
	at   time.Duration // since the swarm began
	what string        // the whole of it, for people: a seed gives the same ones
	do   func(*nemesis) error
}

// schedule is what happens on a day. It depends on nothing but the seed: it knows what it did before, and asks nobody.
type schedule struct {
	rng   *rand.Rand
	now   time.Duration
	steps []step
	// number is of the next service or secret: no name is used twice.
	number   int
	services []*wish
	// down and cut are machines that are out of reach, drained those that take no tasks.
	down, cut, drained []string
	// apart are two machines that don't reach each other, but all others.
	apart []string
}

// wish is a service as people want it.
type wish struct {
	name     string
	replicas int
	secret   string
	version  int  // of the program
	port     bool // it publishes one, so that no two of its tasks are on a node
	device   bool // its tasks have one each
}

const (
	// busy is how long things happen one after the other, before there must be quiet.
	busy = 10 * time.Minute
	// maxServices and maxReplicas keep the swarm from being full for ever: all of it must converge. maxCompletions has jobs fill it for a
	// while.
	maxServices    = 8
	maxReplicas    = 9
	maxCompletions = 40
	maxPublished   = 4 // of 5 nodes in a zone
)

// kinds of services, by how their names begin. The names say whether a new task starts before the old one stops.
var kinds = []string{"web", "first", "all", "allfirst", "job", "alljob"}

func startsFirst(name string) bool {
	return strings.HasPrefix(name, "first") || strings.HasPrefix(name, "allfirst")
}

func isJob(name string) bool {
	return strings.HasPrefix(name, "job") || strings.HasPrefix(name, "alljob")
}
func isGlobal(name string) bool { return strings.HasPrefix(name, "all") }

// newSchedule makes the schedule of a day of some length.
func newSchedule(seed uint64, length time.Duration) []step {
	s := &schedule{rng: rand.New(rand.NewPCG(seed, 1)), now: time.Minute}
	for s.now < length {
		total, mood := s.mood()
		for end := min(s.now+busy, length); s.now < end; {
			s.something(total, mood)
			s.now += s.between(time.Second, 45*time.Second)
		}
		s.rest()
	}
	return s.steps
}

func (s *schedule) between(from, to time.Duration) time.Duration {
	return from + time.Duration(s.rng.Int64N(int64(to-from)))
}

func (s *schedule) add(do func(*nemesis) error, format string, args ...any) {
	s.steps = append(s.steps, step{at: s.now, what: fmt.Sprintf(format, args...), do: do})
}

func pick[T any](s *schedule, from []T) T { return from[s.rng.IntN(len(from))] }

// acts are what may happen, and how often of all.
func acts() []act {
	return []act{
		{6, (*schedule).deploy},
		{3, (*schedule).remove},
		{8, (*schedule).scale},
		{12, (*schedule).update},
		{4, (*schedule).sicken},
		{3, (*schedule).rollBack},
		{3, (*schedule).holdUp},
		{3, (*schedule).rotate},
		{5, (*schedule).setNode},
		{6, (*schedule).fell},
		{8, (*schedule).raise},
		{3, (*schedule).replace},
		{4, (*schedule).divide},
		{4, (*schedule).part},
		{5, (*schedule).join},
		{3, (*schedule).handOver},
		{1, (*schedule).blackout},
	}
}

type act struct {
	weight int
	add    func(*schedule) // a step, if it is possible
}

// mood draws how often what happens for a while: some things not at all, others all the time.
func (s *schedule) mood() (total int, mood []act) {
	mood = acts()
	for i := range mood {
		mood[i].weight *= pick(s, []int{0, 1, 1, 1, 5})
		total += mood[i].weight
	}
	return total, mood
}

// something adds a step.
func (s *schedule) something(total int, mood []act) {
	if len(s.services) < 3 || total == 0 {
		s.deploy()
		return
	}
	drawn := s.rng.IntN(total)
	for _, a := range mood {
		if drawn -= a.weight; drawn < 0 {
			a.add(s)
			return
		}
	}
}

// deploy creates a service, of any kind, perhaps with a constraint, reservations, a readiness check, and a secret of its own.
func (s *schedule) deploy() {
	if len(s.services) >= maxServices {
		return
	}
	w, spec := s.wish()
	what := fmt.Sprintf("create %s", w.name)
	if !isGlobal(w.name) {
		what += fmt.Sprintf(" of %d", w.replicas)
	}
	if s.rng.IntN(3) == 0 {
		w.secret = fmt.Sprint("secret", s.number)
		what += " with " + w.secret
	}
	if c := spec.GetTask().GetPlacement().GetConstraints(); len(c) > 0 {
		what += " where " + c[0]
	}
	s.services = append(s.services, w)
	s.add(func(n *nemesis) error {
		if w.secret != "" {
			id, err := n.createSecret(w.secret)
			if err != nil {
				return err
			}
			spec.Task.Container.Secrets = []*api.SecretReference{{SecretId: id, SecretName: w.secret, Target: &api.SecretTarget{Name: "key"}}}
		}
		return n.create(spec)
	}, "%s", what)
}

// wish draws a new service.
func (s *schedule) wish() (*wish, *api.ServiceSpec) {
	s.number++
	w := &wish{name: fmt.Sprint(pick(s, kinds), s.number)}
	w.port = !isJob(w.name) && s.rng.IntN(4) == 0
	others := slices.ContainsFunc(s.services, func(o *wish) bool { return o.device })
	w.device = s.rng.IntN(3) == 0 && (isJob(w.name) || !startsFirst(w.name) && !others) // jobs can wait, and others have to have room
	w.replicas = s.size(w)
	return w, s.spec(w)
}

// size draws how many tasks a service has.
func (s *schedule) size(w *wish) int {
	if isJob(w.name) {
		return 1 + s.rng.IntN(maxCompletions)
	}
	if w.port {
		return 1 + s.rng.IntN(maxPublished)
	}
	return 1 + s.rng.IntN(maxReplicas)
}

func (s *schedule) spec(w *wish) *api.ServiceSpec {
	spec := &api.ServiceSpec{
		Annotations: &api.Annotations{Name: w.name},
		Task: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: "day:app", Env: []string{"VERSION=0"}},
			Resources: &api.ResourceRequirements{Reservations: s.reserve(w)},
			Restart:   &api.RestartPolicy{Delay: durationpb.New(s.between(time.Second, 6*time.Second))},
			Placement: &api.Placement{},
		},
	}
	if s.rng.IntN(4) == 0 {
		spec.Task.Placement.Constraints = []string{"node.labels." + zoneLabel + "==" + pick(s, zones)}
	}
	if w.port {
		spec.Endpoint = &api.EndpointSpec{Ports: []*api.PortConfig{{TargetPort: 80, PublishedPort: uint32(firstPort + s.number)}}}
	}
	if s.rng.IntN(4) == 0 && !isJob(w.name) {
		spec.Task.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "check"}}
	}
	switch {
	case isJob(w.name) && isGlobal(w.name):
		spec.GlobalJob = &api.GlobalJob{}
	case isJob(w.name):
		spec.ReplicatedJob = &api.ReplicatedJob{TotalCompletions: uint64(w.replicas), MaxConcurrent: pick(s, []uint64{0, 0, 4, 6, 8})}
	case isGlobal(w.name):
		spec.Global = &api.GlobalService{}
	default:
		spec.Replicated = &api.ReplicatedService{Replicas: uint64(w.replicas)}
	}
	if isJob(w.name) {
		spec.Task.Container.Image = "day:job"
		return spec
	}
	spec.Update = s.way(w, pick(s, []api.FailureAction{
		api.FailureAction_FAILURE_ACTION_PAUSE, api.FailureAction_FAILURE_ACTION_CONTINUE, api.FailureAction_FAILURE_ACTION_ROLLBACK,
	}))
	spec.Rollback = s.way(w, pick(s, []api.FailureAction{api.FailureAction_FAILURE_ACTION_PAUSE, api.FailureAction_FAILURE_ACTION_CONTINUE}))
	return spec
}

// deviceKind is a generic resource that each machine has some of, and firstPort is where the ports of services begin.
const (
	deviceKind = "gpu"
	firstPort  = 8000
)

// reserve draws what a task reserves. Jobs have to wait for room now and then; all else has room in one zone, also while it is updated.
func (s *schedule) reserve(w *wish) *api.Resources {
	const unit = 50_000_000
	cpus := int64(s.rng.IntN(3)) * unit
	if isJob(w.name) {
		cpus = int64(8+s.rng.IntN(12)) * unit
	}
	reserved := &api.Resources{NanoCpus: cpus, MemoryBytes: int64(s.rng.IntN(4)) << 26}
	if w.device {
		reserved.Generic = []*api.GenericResource{{Kind: deviceKind, Count: 1}}
	}
	return reserved
}

// way is how tasks of a service are replaced.
func (s *schedule) way(w *wish, action api.FailureAction) *api.UpdateConfig {
	u := &api.UpdateConfig{Parallelism: uint64(s.rng.IntN(4)), Order: api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, FailureAction: action}
	if startsFirst(w.name) {
		u.Order = api.UpdateOrder_UPDATE_ORDER_START_FIRST
	}
	if s.rng.IntN(2) == 0 {
		u.Delay = durationpb.New(s.between(time.Second, 10*time.Second))
	}
	return u
}

// zones are the values of the nodes' label.
var zones = []string{"a", "b"}

func (s *schedule) remove() {
	i := s.rng.IntN(len(s.services))
	w := s.services[i]
	s.services = slices.Delete(s.services, i, i+1)
	s.add(func(n *nemesis) error { return n.remove(w.name) }, "remove %s", w.name)
}

func (s *schedule) scale() {
	w := pick(s, s.services)
	if isGlobal(w.name) {
		return
	}
	replicas := s.size(w)
	if isJob(w.name) {
		replicas = max(replicas, w.replicas) // what is done can't be undone
	}
	w.replicas = replicas
	s.add(func(n *nemesis) error {
		return n.edit(w.name, func(spec *api.ServiceSpec) {
			if job := spec.GetReplicatedJob(); job != nil {
				job.TotalCompletions = uint64(replicas)
				return
			}
			spec.Replicated.Replicas = uint64(replicas)
		})
	}, "scale %s to %d", w.name, replicas)
}

func (s *schedule) update() {
	w := pick(s, s.services)
	s.change(w, "app")
}

// sicken updates to a program that does not work.
func (s *schedule) sicken() {
	if w := pick(s, s.services); !isJob(w.name) {
		s.change(w, pick(s, []string{"crash", "missing", "broken"}))
	}
}

// change updates to another version of the program. It says again how many there are to be: a rollback may have taken that back.
func (s *schedule) change(w *wish, tag string) {
	w.version++
	env, replicas := []string{fmt.Sprint("VERSION=", w.version)}, uint64(w.replicas)
	s.add(func(n *nemesis) error {
		return n.edit(w.name, func(spec *api.ServiceSpec) {
			if !isJob(w.name) {
				spec.Task.Container.Image = "day:" + tag
			}
			if spec.GetReplicated() != nil {
				spec.Replicated.Replicas = replicas
			}
			spec.Task.Container.Env = env
		})
	}, "update %s to %s of version %d", w.name, tag, w.version)
}

func (s *schedule) rollBack() {
	if w := pick(s, s.services); !isJob(w.name) {
		s.add(func(n *nemesis) error {
			return n.service(func(ctx context.Context, c api.ControlClient) error {
				_, err := c.RollbackService(ctx, &api.RollbackServiceRequest{Service: w.name})
				return err
			})
		}, "roll back %s", w.name)
	}
}

// holdUp pauses the update of a service, or lets it go on.
func (s *schedule) holdUp() {
	w, resume := pick(s, s.services), s.rng.IntN(2) == 0
	if isJob(w.name) {
		return
	}
	s.add(func(n *nemesis) error {
		return n.service(func(ctx context.Context, c api.ControlClient) error {
			_, err := c.PauseServiceUpdate(ctx, &api.PauseServiceUpdateRequest{Service: w.name, Resume: resume})
			return err
		})
	}, "pause the update of %s: %v", w.name, !resume)
}

// rotate gives a secret another value.
func (s *schedule) rotate() {
	w := pick(s, s.services)
	if w.secret == "" {
		return
	}
	w.version++
	value := fmt.Sprint("value ", w.version)
	s.add(func(n *nemesis) error { return n.updateSecret(w.secret, value) }, "change %s of %s to %s", w.secret, w.name, value)
}

// setNode gives a node another availability or zone.
func (s *schedule) setNode() {
	name := pick(s, s.all())
	if s.rng.IntN(3) == 0 {
		zone := pick(s, zones)
		s.add(func(n *nemesis) error { return n.editNode(name, func(spec *api.NodeSpec) { setZone(spec, zone) }) }, "put %s in zone %s", name, zone)
		return
	}
	availability := api.Availability(1 + s.rng.IntN(3))
	s.drained = slices.DeleteFunc(s.drained, func(other string) bool { return other == name })
	if availability != api.Availability_AVAILABILITY_ACTIVE {
		if len(s.drained) > 2 {
			return
		}
		s.drained = append(s.drained, name)
	}
	s.add(func(n *nemesis) error {
		return n.editNode(name, func(spec *api.NodeSpec) { spec.Availability = availability })
	}, "make %s %v", name, availability)
}

func setZone(spec *api.NodeSpec, zone string) {
	if spec.Annotations == nil {
		spec.Annotations = &api.Annotations{}
	}
	spec.Annotations.Labels = map[string]string{zoneLabel: zone}
}

// all are the names of the machines.
func (s *schedule) all() (names []string) {
	for i := range managers {
		names = append(names, fmt.Sprint("m", i+1))
	}
	for i := range workers {
		names = append(names, fmt.Sprint("w", i+1))
	}
	return names
}

// reached are the machines that nothing befell. At most one manager, and three machines, are out of reach at a time.
func (s *schedule) reached() (names []string) {
	gone := slices.Concat(s.down, s.cut)
	if len(gone) >= 3 {
		return nil
	}
	managerGone := slices.ContainsFunc(gone, isManager) || len(s.apart) > 0 && isManager(s.apart[0]) && isManager(s.apart[1])
	for _, name := range s.all() {
		if !slices.Contains(gone, name) && (!isManager(name) || !managerGone) {
			names = append(names, name)
		}
	}
	return names
}

// fell ends a daemon or a machine.
func (s *schedule) fell() {
	names := s.reached()
	if len(names) == 0 {
		return
	}
	name, how := pick(s, names), pick(s, []string{"stop", "kill", "power"})
	s.down = append(s.down, name)
	s.add(func(n *nemesis) error { return n.down(name, how) }, "%s %s", how, name)
}

func (s *schedule) raise() {
	if len(s.down) == 0 {
		return
	}
	i := s.rng.IntN(len(s.down))
	name := s.down[i]
	s.down = slices.Delete(s.down, i, i+1)
	s.add(func(n *nemesis) error { return n.up(name) }, "start %s", name)
}

// replace wipes a worker that does not run, and has it join anew.
func (s *schedule) replace() {
	i := slices.IndexFunc(s.down, func(name string) bool { return !isManager(name) && !slices.Contains(s.cut, name) })
	if i < 0 {
		return
	}
	name := s.down[i]
	s.down = slices.Delete(s.down, i, i+1)
	s.add(func(n *nemesis) error { return n.replace(name) }, "remove the node %s, and have the machine join anew", name)
}

// divide cuts a machine off, also one that does not run, and join mends the network.
func (s *schedule) divide() {
	names := slices.Concat(s.reached(), s.down)
	if len(names) == 0 || len(s.cut)+len(s.apart) > 0 {
		return
	}
	name := pick(s, names)
	s.cut = append(s.cut, name)
	s.add(func(n *nemesis) error { return n.cut(name) }, "cut %s off", name)
}

// part has two machines that are there not reach each other. One of them is a manager, of which all are there, or else nobody would notice.
func (s *schedule) part() {
	reached := s.reached()
	all := slices.DeleteFunc(slices.Clone(reached), func(name string) bool { return !isManager(name) })
	if len(all) < managers || len(s.cut)+len(s.apart) > 0 {
		return
	}
	one, other := pick(s, all), pick(s, reached)
	if one == other {
		return
	}
	s.apart = []string{one, other}
	s.add(func(n *nemesis) error { n.network.part(one, other); return nil }, "cut %s off from %s", one, other)
}

func isManager(name string) bool { return name[0] == 'm' }

func (s *schedule) join() {
	if len(s.cut)+len(s.apart) > 0 {
		s.cut, s.apart = nil, nil
		s.add((*nemesis).mend, "mend the network")
	}
}

// blackout is for when nothing else befell managers.
func (s *schedule) blackout() {
	if len(s.cut)+len(s.apart) > 0 || slices.ContainsFunc(s.down, isManager) {
		return
	}
	how, lasts := pick(s, []string{"kill", "power"}), s.between(time.Second, 5*time.Minute)
	s.add(func(n *nemesis) error { return n.blackout(how, lasts) }, "%s all managers for %s", how, lasts)
	s.now += lasts
}

func (s *schedule) handOver() { s.add((*nemesis).transfer, "have another manager lead") }

// rest ends all that is wrong, and wants the swarm to be as people want it before long.
func (s *schedule) rest() {
	s.add(func(n *nemesis) error { n.setCalm(true); return nil }, "nothing fails by itself")
	s.join()
	for len(s.down) > 0 {
		s.raise()
	}
	for _, name := range s.drained {
		s.add(func(n *nemesis) error {
			return n.editNode(name, func(spec *api.NodeSpec) { spec.Availability = api.Availability_AVAILABILITY_ACTIVE })
		}, "activate %s", name)
	}
	s.drained = nil
	for i, name := range s.all() { // so that every constraint can be met
		zone := zones[i%len(zones)]
		s.add(func(n *nemesis) error { return n.editNode(name, func(spec *api.NodeSpec) { setZone(spec, zone) }) }, "put %s in zone %s", name, zone)
	}
	for _, w := range s.services {
		if !isJob(w.name) {
			s.change(w, "app")
		}
	}
	wishes := s.wishes()
	s.add(func(n *nemesis) error { return n.settle(wishes) }, "wait for everything to be as it should")
	s.foretold()
	s.add(func(n *nemesis) error { n.setCalm(false); return nil }, "things fail by themselves again")
}
