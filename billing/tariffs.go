package billing

import "gorm.io/gorm"

// tariffs are the named plans, by name.
type tariffs map[string]*Tariff

// tariffRow is a row of the table tariffs.
type tariffRow struct {
	Name        string `gorm:"primaryKey"`
	Description string
	Tariff      int64
	Daily       int64
	Monthly     int64
	RPM         int64 `gorm:"column:rpm"`
	TPM         int64 `gorm:"column:tpm"`
	Concurrent  int64
	Money       int64
}

// TableName is read by GORM.
func (tariffRow) TableName() string { return "tariffs" }

func (r *tariffRow) tariff() *Tariff {
	return &Tariff{
		Name: r.Name, Description: r.Description,
		Limits: Limits{Tariff: r.Tariff, Daily: r.Daily, Monthly: r.Monthly, Money: r.Money},
		RPM:    r.RPM, TPM: r.TPM, Concurrent: r.Concurrent,
	}
}

func loadTariffs(db *gorm.DB) (tariffs, error) {
	var rows []tariffRow
	if err := db.Find(&rows).Error; err != nil {
		return nil, err
	}
	all := make(tariffs, len(rows))
	for i := range rows {
		all[rows[i].Name] = rows[i].tariff()
	}
	return all, nil
}
