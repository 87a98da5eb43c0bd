package launch

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/thread"
)

// clone forks the child, in the namespaces that the plan wants. Those that others made are joined by the thread that
// forks, which ends afterwards; some the child makes itself (late).
func (b *baggage) clone(job Job) (pid, pidfd int, err error) {
	flags := job.Plan.Namespaces &^ late
	if len(job.Plan.Join) == 0 {
		return fork(b.program.table, b.program.control, flags, job.Group.FD())
	}
	done := make(chan struct{})
	thread.Go(func() {
		defer close(done)
		for _, j := range job.Plan.Join {
			if err = join(j.Kind, j.Path); err != nil {
				err = fmt.Errorf("join namespace %s: %w", j.Path, err)
				return
			}
		}
		pid, pidfd, err = fork(b.program.table, b.program.control, flags, job.Group.FD())
	})
	<-done
	return pid, pidfd, err
}

// join brings the thread into a namespace. The kernel refuses one of another kind.
func join(kind uint64, path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, int(kind))
}
