package billing

func (b *Book) NewHoldID() string { id, _ := newUUID(b.opt.Now()); return id.String() }
