package supervisor

import "time"

// calmTime is how long nothing is launched before the memory of what was is given back. To get it again takes the next launch some tens of
// microseconds, so it is kept between launches that follow each other.
const calmTime = 3 * time.Second

// calm calls a function when nothing has happened for a while, once for all that happened before.
type calm struct{ timer *time.Timer }

// newCalm begins with a while in which nothing happens. Call stop in the end.
func newCalm(do func()) *calm { return &calm{timer: time.AfterFunc(calmTime, do)} }

// stir says that something happens.
func (c *calm) stir() { c.timer.Reset(calmTime) }

func (c *calm) stop() { c.timer.Stop() }
