// Package storetest makes stores for the tests of other packages.
//
// The stores are real ones, in memory and without peers: they check versions, names and limits as a cluster does, so what
// passes against them is not surprised later. They need no goroutine and no time, so they work inside synctest bubbles.
package storetest

import (
	"testing"

	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// New returns an empty local store that leads.
func New(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.NewLocal("testcluster")
	if err != nil {
		t.Fatalf("new store: %v", err)
	}
	return s
}

// Create puts objects into s, in one transaction.
func Create(t testing.TB, s *store.Store, objects ...object.Object) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		for _, o := range objects {
			if err := tx.Create(o); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("create objects: %v", err)
	}
}

// Get returns an object, or fails the test when there is none.
func Get[T object.Object](t testing.TB, s *store.Store, id string) T {
	t.Helper()
	var found T
	err := s.View(func(tx store.ReadTx) (err error) {
		found, err = store.Get[T](tx, id)
		return err
	})
	if err != nil {
		t.Fatalf("get object: %v", err)
	}
	return found
}

// List returns the objects that match.
func List[T object.Object](t testing.TB, s *store.Store, by ...store.By) []T {
	t.Helper()
	var found []T
	err := s.View(func(tx store.ReadTx) (err error) {
		found, err = store.List[T](tx, by...)
		return err
	})
	if err != nil {
		t.Fatalf("list objects: %v", err)
	}
	return found
}
