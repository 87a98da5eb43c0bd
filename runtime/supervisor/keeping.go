package supervisor

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/keeper"
)

// keeping is the way to the keeper, which remembers what happens to containers while no supervisor runs. There may be
// none: then that is lost.
type keeping struct {
	mu     sync.Mutex // guards client
	client *keeper.Client
}

func (k *keeping) get() *keeper.Client {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.client
}

func (k *keeping) set(c *keeper.Client) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.client = c
}

// Bounds of the pause before the keeper is looked for again. The daemon starts another when one dies; a supervisor that
// somebody started by hand has none for all its life.
const (
	keeperPauseMin = 100 * time.Millisecond
	keeperPauseMax = 20 * time.Second
)

// meetKeeper connects to the keeper, if there is one.
func (s *Supervisor) meetKeeper(ctx context.Context) bool {
	client, err := keeper.Dial(ctx, keeper.Socket(s.cfg.Root))
	if err != nil {
		return false
	}
	s.keeping.set(client)
	return true
}

// stayKept connects again whenever the keeper dies, and has the next one hold what the one before did, until ctx ends.
func (s *Supervisor) stayKept(ctx context.Context) {
	for pause := keeperPauseMin; ; pause = min(2*pause, keeperPauseMax) {
		if client := s.keeping.get(); client != nil {
			select {
			case <-ctx.Done():
				s.keeping.set(nil)
				client.Close()
				return
			case <-client.Gone():
			}
			s.keeping.set(nil)
			client.Close()
			s.logger.Warn("the keeper is gone: what happens to containers while no supervisor runs will not be known")
			pause = keeperPauseMin
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if s.meetKeeper(ctx) {
			s.logger.Info("found a keeper")
			for _, c := range s.all() {
				s.hold(c)
			}
		}
	}
}

// settle has the keeper let go of containers that are no more.
func (s *Supervisor) settle() {
	if client := s.keeping.get(); client != nil {
		s.told(client.Settle())
	}
}

// hold has the keeper remember the container, unless that has ended.
func (s *Supervisor) hold(c *container) {
	client := s.keeping.get()
	if client == nil {
		return
	}
	c.mu.Lock() // so that it is not held after its end, which forgets it
	defer c.mu.Unlock()
	if c.process == nil || c.machine.phase == phaseExited {
		return
	}
	c.output.use(func(fds []int) { s.told(client.Hold(c.id, c.process.Pid(), fds...)) })
}

// forget has the keeper let go of a container whose end is in the journal.
func (s *Supervisor) forget(c *container) {
	if client := s.keeping.get(); client != nil {
		s.told(client.Forget(c.id))
	}
}

// told logs what became of a word to the keeper.
func (s *Supervisor) told(err error) {
	if err != nil {
		s.logger.Warn("not told to the keeper", "error", err)
	}
}

// recollect gives what the keeper has of a container. The caller closes the files.
func (s *Supervisor) recollect(id string) keeper.Held {
	client := s.keeping.get()
	if client == nil {
		return keeper.Held{}
	}
	held, err := client.Ask(id)
	if err != nil {
		s.logger.Error("the keeper does not tell of a container", "container", id, "error", err)
	}
	return held
}

// witnessed gives how a container ended, if the keeper knows.
func (s *Supervisor) witnessed(id string) (status unix.WaitStatus, known bool) {
	held := s.recollect(id)
	for _, fd := range held.Files {
		unix.Close(fd)
	}
	return held.Status, held.Exited
}
