package supervisor

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCalm_ComesOnceAfterTheLastOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calms atomic.Int32
		c := newCalm(func() { calms.Add(1) })
		defer c.stop()
		wait := func(d time.Duration, want int32) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := calms.Load(); got != want {
				t.Errorf("%d calms, want %d", got, want)
			}
		}
		for range 10 {
			c.stir()
			wait(calmTime-time.Millisecond, 0)
		}
		wait(time.Millisecond, 1)
		wait(10*calmTime, 1)
		c.stir()
		wait(calmTime, 2)
	})
}
