package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// Sizes of TestView_NeverChanges: enough for trees of several levels, which grow and shrink.
const (
	viewTasks   = 1200
	viewRounds  = 120
	viewChanges = 100
)

// services are tasks, by id, with the service of each.
type services map[string]string

// put makes tx hold the tasks of next where others are there now.
func (now services) put(tx store.Tx, next services) error {
	for id, service := range next {
		var err error
		switch old, there := now[id]; {
		case !there:
			err = tx.Create(task(id, service, 1, "n"))
		case old != service:
			err = moveTask(tx, id, service)
		}
		if err != nil {
			return err
		}
	}
	for id := range now {
		if _, stays := next[id]; !stays {
			if err := tx.Delete(object.KindTask, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func moveTask(tx store.Tx, id, service string) error {
	o, err := store.Get[*api.Task](tx, id)
	if err != nil {
		return err
	}
	o = proto.CloneOf(o)
	o.ServiceId = service
	return tx.Update(o)
}

// check compares what tx shows, by each index, with what it must.
func (now services) check(tx store.ReadTx) error {
	lists := map[string][]string{}
	for id, service := range now {
		lists[""], lists[service] = append(lists[""], id), append(lists[service], id)
	}
	for i := range 6 {
		by, name := store.ByIDPrefix(""), ""
		if i > 0 {
			name = fmt.Sprint("s", i)
			by = store.ByService(name)
		}
		all, err := store.List[*api.Task](tx, by)
		if err != nil {
			return err
		}
		slices.Sort(lists[name])
		if got, want := ids(all), strings.Join(lists[name], " "); got != want {
			return fmt.Errorf("snapshot %d: %q has\n%s, want\n%s", tx.Index(), name, got, want)
		}
	}
	return nil
}

// A snapshot shows the same whatever is written after it, and whatever transactions do meanwhile that are given up.
func TestView_NeverChanges(t *testing.T) {
	s := storetest.New(t)
	random := rand.New(rand.NewPCG(1, 2))
	errGivenUp := errors.New("given up")
	now := services{}
	var checks []func() error
	for round := range viewRounds {
		next := maps.Clone(now)
		for range viewChanges {
			id := fmt.Sprintf("t%04d", random.IntN(viewTasks))
			if random.IntN(viewRounds) < round {
				delete(next, id)
			} else {
				next[id] = fmt.Sprint("s", 1+random.IntN(5))
			}
		}
		var others sync.WaitGroup
		others.Go(func() {
			err := s.Update(t.Context(), "", func(tx store.Tx) error {
				if now.check(tx) != nil {
					return nil // the other one was faster
				}
				return errors.Join(now.put(tx, next), next.check(tx), errGivenUp)
			})
			if err != nil && err.Error() != errGivenUp.Error() {
				t.Error(err)
			}
		})
		err := update(t, s, func(tx store.Tx) error { return now.put(tx, next) })
		others.Wait()
		if err != nil {
			t.Fatal(err)
		}
		now = next
		if err := s.View(func(tx store.ReadTx) error {
			checks = append(checks, func() error { return next.check(tx) })
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, check := range checks {
		if err := check(); err != nil {
			t.Fatal(err)
		}
	}
}

// A transaction may change what it goes through: it comes to each object that was there once, and not to what it made.
func TestAll_OfATransactionThatChangesIt(t *testing.T) {
	s := storetest.New(t)
	now := services{}
	for i := range 200 {
		now[fmt.Sprintf("t%03d", i)] = "s1"
	}
	if err := update(t, s, func(tx store.Tx) error { return services{}.put(tx, now) }); err != nil {
		t.Fatal(err)
	}
	next := services{}
	err := update(t, s, func(tx store.Tx) error {
		next = services{}
		if err := tx.Create(task("a", "s1", 1, "n")); err != nil {
			return err
		}
		all, err := store.All[*api.Task](tx, store.ByService("s1"))
		if err != nil {
			return err
		}
		n := 0
		for o := range all {
			n++
			id := "u" + o.GetId()
			next[id] = "s1"
			if err := errors.Join(tx.Create(task(id, "s1", 1, "n")), tx.Delete(object.KindTask, o.GetId())); err != nil {
				return err
			}
		}
		if n != len(now)+1 {
			return fmt.Errorf("it came to %d tasks of %d", n, len(now)+1)
		}
		return next.check(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.View(next.check); err != nil {
		t.Fatal(err)
	}
}
