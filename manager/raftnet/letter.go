package raftnet

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// noticeDelay is how long the news that entries are committed may wait for other entries, whose message says so, too. Whoever writes
// one thing after the other has the next one on its way by then, and half of the messages are saved. On an idle machine the kernel makes a
// millisecond of it, which is little beside what anybody waits for who gets the state from another manager than the leader.
const noticeDelay = 500 * time.Microsecond

// letter is a message on its way.
type letter struct {
	encoded []byte
	append  bool // it is an append; the others are set for those only
	notice  bool // without entries
	// Of the message.
	term, index, commit uint64
}

func newLetter(m *raftpb.Message, encoded []byte) letter {
	if m.GetType() != raftpb.MsgApp {
		return letter{encoded: encoded}
	}
	return letter{
		encoded: encoded, append: true, notice: len(m.GetEntries()) == 0, term: m.GetTerm(), index: m.GetIndex(), commit: m.GetCommit(),
	}
}

// says reports whether who gets l needs no earlier notice: it says as much, and is answered at least where that would be.
func (l letter) says(notice letter) bool {
	return l.append && l.term == notice.term && l.index >= notice.index && l.commit >= notice.commit
}

// post sends a letter; a notice only once nothing followed for a moment that says as much.
func (p *peer) post(l letter, timer *time.Timer, send func(letter) error) error {
	timer.Reset(noticeDelay) // for all notices in a row: however many follow each other, the first of them is not held up for longer
	for l.notice {
		next, ok := p.within(timer)
		if !ok {
			break
		}
		if !next.says(l) {
			if err := send(l); err != nil {
				return err
			}
			timer.Reset(noticeDelay)
		}
		l = next
	}
	return send(l)
}

// within returns the letter that follows before the timer ends, if there is one.
func (p *peer) within(timer *time.Timer) (letter, bool) {
	select {
	case l := <-p.queue:
		return l, true
	case <-timer.C:
		return letter{}, false
	}
}
