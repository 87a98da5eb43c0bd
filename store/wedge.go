package store

import (
	"errors"

	"github.com/skep-io/skep/store/raftcore"
)

const (
	// stallTicks is how long the disk may take before it counts as stalled: 5 s. A disk that is only busy answers sooner.
	stallTicks = 50
	// handOverTicks is the least time between two tries of a leader with a stalled disk to hand over: 1 minute.
	handOverTicks = 600
)

// wedge watches the disk of a manager. While it does not finish what it was given, this manager can't lead, nor vote: others
// lead instead, and it does not disturb them. Owned by the loop; its time is ticks.
type wedge struct {
	waited int // since the disk finished something, while something waits for it
	rest   int // before leadership may be handed over again
}

// stalled reports whether the disk counts as stalled.
func (w *wedge) stalled() bool { return w.waited >= stallTicks }

// finished notes that the disk finished something, and reports whether it had been stalled.
func (w *wedge) finished() bool {
	was := w.stalled()
	w.waited = 0
	return was
}

// tick notes that time passed, and reports whether the disk has just become one that is stalled.
func (w *wedge) tick(waiting bool) bool {
	w.rest = max(0, w.rest-1)
	if !waiting {
		w.waited = 0
		return false
	}
	w.waited++
	return w.waited == stallTicks
}

// watchDisk hands leadership over when the disk is stalled.
func (c *cluster) watchDisk() error {
	if c.wedge.tick(c.writing > 0) {
		c.logger.Warn("the disk does not finish writing: this manager does not lead until it does")
	}
	if !c.wedge.stalled() || c.wedge.rest > 0 || !c.core.Leader().Self {
		return nil
	}
	c.wedge.rest = handOverTicks
	err := c.transfer()
	if errors.Is(err, ErrQuorum) {
		c.logger.Warn("leadership can't be handed over", "error", err)
		return nil
	}
	return err
}

// diskFinished notes that the disk goes on.
func (c *cluster) diskFinished() {
	if c.wedge.finished() {
		c.logger.Info("the disk finished writing again")
	}
}

// passTime lets the core's time pass. That of a follower whose disk is stalled stands still: it can't become the leader, so it
// must not try to. (Nobody hands leadership to it either: that is for a member that has acknowledged all of the log.)
func (c *cluster) passTime() error {
	if c.wedge.stalled() && !c.core.Leader().Self {
		return nil
	}
	return c.step(raftcore.Tick{})
}
