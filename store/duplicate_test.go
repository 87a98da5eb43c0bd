package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// TestUpdate_WhoeverIsToldOfADuplicateSeesWhatItDid sends each request several times at the same moment.
func TestUpdate_WhoeverIsToldOfADuplicateSeesWhatItDid(t *testing.T) {
	s := storetest.New(t)
	for i := range 300 {
		id := fmt.Sprint("s", i)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				err := s.Update(t.Context(), "request-"+id, func(tx store.Tx) error { return tx.Create(service(id, id)) })
				if err != nil && !errors.Is(err, store.ErrDuplicate) {
					t.Errorf("update: %v", err)
				}
				err = s.View(func(tx store.ReadTx) error {
					_, err := store.Get[*api.Service](tx, id)
					return err
				})
				if err != nil {
					t.Errorf("after the update: %v", err)
				}
			})
		}
		wg.Wait()
	}
}
