package usage

// maxHeld is the longest event, in bytes, that can be a usage chunk; a longer one streams on as it comes.
const maxHeld = 64 << 10

// span is a stretch of the current piece.
type span struct{ from, to int }

// dropper takes whole events out of a stream. Whether an event goes is known only at its end, so it holds back the unfinished one.
type dropper struct {
	on   bool
	held []byte // begin of the unfinished event, from earlier pieces
	out  []byte // what the client receives instead of the piece

	cuts        []span // what leaves the current piece
	from        int    // where the unfinished event begins in it
	anyEnd      bool   // an event ended in it
	heldDropped bool   // and the held bytes go with that event
	lastDropped bool   // the event that ended last went
}

// begin starts a piece.
func (d *dropper) begin() {
	d.cuts, d.from, d.anyEnd, d.heldDropped = d.cuts[:0], 0, false, false
}

// eventEnd says that the unfinished event ends before end, and whether it goes.
func (d *dropper) eventEnd(end int, drop bool) {
	if !d.on {
		return
	}
	if drop {
		d.cuts = append(d.cuts, span{d.from, end})
		d.heldDropped = d.heldDropped || !d.anyEnd
	}
	d.from, d.anyEnd, d.lastDropped = end, true, drop
}

// tail says that the byte before end is still part of the event that ended last.
func (d *dropper) tail(end int) {
	if !d.on {
		return
	}
	if d.lastDropped {
		d.cuts = append(d.cuts, span{end - 1, end})
	}
	d.from, d.anyEnd = end, true
}

// finish ends the piece. eventBytes is the length of the unfinished event so far.
func (d *dropper) finish(piece []byte, last bool, eventBytes int64) (changed bool, body []byte) {
	if !d.on {
		return false, nil
	}
	hold, flush := d.from, last || eventBytes > maxHeld
	if flush {
		hold = len(piece)
	}
	if len(d.held) == 0 && len(d.cuts) == 0 && hold == len(piece) {
		return false, nil
	}
	if cap(d.out) > 4*maxHeld { // an unusual piece shall not be paid for all along
		d.out = nil
	}
	d.out = d.out[:0]
	if d.anyEnd || flush {
		if !d.heldDropped {
			d.out = append(d.out, d.held...)
		}
		d.held = d.held[:0]
	}
	at := 0
	for _, cut := range d.cuts {
		d.out = append(d.out, piece[at:cut.from]...)
		at = cut.to
	}
	d.out = append(d.out, piece[at:hold]...)
	d.held = append(d.held, piece[hold:]...)
	return true, d.out
}
