package store_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

func TestReseal_OnlyTheNewKeyOpensTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m := g.first()
		for i := range 50 {
			storetest.Create(t, m.store, task(fmt.Sprint("t", i), "s", 1, ""))
		}
		old, unlock := m.disk.KEK, seal.NewKey()
		for range 2 {
			if err := m.store.Reseal(unlock, seal.SourceUnlockKey); err != nil {
				t.Fatal(err)
			}
		}
		m.stop()
		if _, err := store.Open(store.Config{Disk: m.disk}); !errors.Is(err, seal.ErrWrongKey) {
			t.Errorf("open with the old key: %v", err)
		}
		if _, source, err := store.Inspect(m.disk.FS, m.disk.Dir); err != nil || source != seal.SourceUnlockKey {
			t.Errorf("inspect: %v, %v", source, err)
		}
		m.disk.KEK = unlock
		m.start()
		g.await(m.leads)
		if got := len(storetest.List[*api.Task](t, m.store)); got != 50 {
			t.Errorf("%d of 50 tasks", got)
		}
		if err := m.store.Reseal(old, seal.SourceKeyFile); err != nil {
			t.Error(err)
		}
	})
}
