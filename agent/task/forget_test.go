package task

import (
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/skep-io/skep/api"
)

// Each transaction takes the disk milliseconds, and what managers assign waits for it: the tasks of a large service that end at once
// are forgotten in one.
func TestManager_ForgetsTogetherWhatEndedTogether(t *testing.T) {
	const tasks = 50
	dir := t.TempDir()
	m, err := Open(Config{Dir: dir, Report: func(string, *api.TaskStatus) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	var all []*api.Task
	for i := range tasks {
		all = append(all, &api.Task{Id: strconv.Itoa(i)})
	}
	if err := m.db.saveTasks(all); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m.finished = make(chan string)
		for _, task := range all {
			go func() { m.finished <- task.GetId() }()
		}
		synctest.Wait()
		ids := m.allFinished(<-m.finished)
		slices.Sort(ids)
		if got := len(slices.Compact(ids)); got != tasks {
			t.Errorf("%d of %d tasks that have finished", got, tasks)
		}
		m.forget(ids)
	})
	left, err := m.db.load(m.log)
	if err != nil || len(left) > 0 {
		t.Errorf("%d tasks are still known, %v", len(left), err)
	}
}
