package store_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/skep-io/skep/store/storetest"
)

func TestCluster_TakesANewSnapshotIntervalWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGroup(t).first()
		write := func(round string) {
			for i := range 30 {
				id := fmt.Sprintf("%s%02d", round, i)
				storetest.Create(t, m.store, service(id, id))
			}
			synctest.Wait()
		}
		newest := func() string {
			names, err := m.disk.FS.ReadDir(m.disk.Dir)
			if err != nil {
				t.Fatal(err)
			}
			last := ""
			for _, name := range names {
				if strings.HasPrefix(name, "snap-") {
					last = max(last, name)
				}
			}
			return last
		}
		began := newest()
		write("a")
		if got := newest(); got != began {
			t.Fatalf("a snapshot after 30 entries, with the default interval: %s", got)
		}
		m.store.SetSnapshotInterval(10)
		write("b")
		if got := newest(); got == began {
			t.Error("no snapshot after 30 entries, with an interval of 10")
		}
	})
}
