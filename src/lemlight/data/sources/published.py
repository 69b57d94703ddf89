"""How many mammograms each public data set has as published: rows of its image table with every option on."""

PUBLISHED = {
    "cbis": 3032,  # in 3103 folders: 71 mammograms stand there twice, once as mass and once as calc
    "cmmd": 5202,
    "inbreast": 410,
    "mias": 322,
    "rsna": 54706,
    "vindr": 20000,
}
